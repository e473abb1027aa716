"""The ablation runner: which rows, which runs, what is run again, and a whole run, tiny."""

import json
import shutil

import pytest
from etils import epath

from inception import command_line
from inception.ablation import __main__ as ablation
from inception.ablation.rows import config_file, load_rows, load_setting, make_runs
from inception.config import differences, flatten, load
from inception.errors import CheckpointError, ConfigError, UserError
from inception.workdir.logbook import MetricLogger
from tests import fake_runs
from tests.conftest import TINY

DIGITS = load_setting(config_file("digits"))
TABLE_3 = ("v2", "v2_rmsprop", "v2_label_smoothing", "v2_factorized_7x7", "v3")


@pytest.fixture
def runs(tmp_path):
    return make_runs(load_rows(("v2", "v3"), DIGITS), 2, epath.Path(tmp_path))


@pytest.fixture
def run_all(monkeypatch):
    """Makes the runs with a stand-in for training; returns its calls and whether none failed."""

    def make(runs, redraw=lambda: None, **raises: BaseException) -> tuple[list[str], bool]:
        calls = []

        def train(config, workdir):
            calls.append(f"{workdir.parent.name}_{config.seed}")
            if error := raises.get(calls[-1]):
                raise error
            fake_runs.write_run(config, workdir, ema_errors=4, raw_errors=6)

        monkeypatch.setattr(ablation, "train_and_evaluate", train)
        good = ablation.run_all(runs, redraw)
        return calls, good

    return make


def _main(argv):
    return command_line.run(lambda: ablation.main(argv))


def test_rows_of_table_3_differ_from_their_parents_in_one_field():
    rows = load_rows(TABLE_3, {})
    assert [row.parent for row in rows] == [None, *TABLE_3[:-1]]
    assert [list(row.changes) for row in rows[1:]] == [
        ["optimizer"],
        ["label_smoothing"],
        ["model.stem"],
        ["model.aux_head"],
    ]


def test_parent_is_the_nearest_row_above():
    names = ("v3", "figure8_none", "figure8_plain", "figure9_pool_first")
    assert [row.parent for row in load_rows(names, {})] == [None, "v3", "v3", "v3"]


def test_setting_leaves_the_rows_differences_alone():
    rows = load_rows(TABLE_3, DIGITS)
    plain = load_rows(TABLE_3, {})
    assert [row.changes for row in rows] == [row.changes for row in plain]
    assert not differences(flatten(rows[-1].config), flatten(load("configs/digits.py")))
    assert rows[0].setting["dataset"] == "digits"
    assert not plain[0].setting


def test_row_and_setting_must_not_change_the_same_field():
    with pytest.raises(ConfigError, match=r"config.image_size.* 151 and 75"):
        load_rows(("resolution_299", "resolution_151"), DIGITS)
    rows = load_rows(("resolution_299", "resolution_151"), DIGITS, ["image_size=151"])
    assert [row.config.image_size for row in rows] == [151, 151]
    assert list(rows[1].changes) == ["model.stem"]


def test_overrides_have_the_last_word():
    (row,) = load_rows(("v2",), DIGITS, ["batch_size=64"])
    assert row.config.batch_size == row.setting["batch_size"] == 64


@pytest.mark.parametrize(
    ("names", "overrides", "message"),
    [
        (("v2", "v2"), (), "--configs.* v2"),
        (("v2", "v2_rmsprop"), ["optimizer=momentum"], "--configs.* v2_rmsprop and v2"),
        (("v2",), ["seed=3"], "--seeds=N"),
        (("v2", "v4"), (), "configs/v4.py"),
        (("v2",), ["batchsize=3"], "config.batchsize"),
    ],
)
def test_rows_that_make_no_sense_are_refused(names, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_rows(names, {}, overrides)


def test_a_row_may_be_a_path(tmp_path):
    shutil.copy("configs/v3.py", tmp_path / "mine.py")
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace('aux_head = "bn"', 'aux_head = "none"'))
    rows = load_rows(("v3", str(tmp_path / "mine.py")), {})
    assert rows[1].name == "mine"
    assert rows[1].changes == {"model.aux_head": ("bn", "none")}


def test_runs_run_seed_after_seed_each_in_its_directory(runs, run_all, tmp_path):
    assert run_all(runs) == (["v2_0", "v2_1", "v3_0", "v3_1"], True)
    assert (tmp_path / "v3" / "seed_1" / "results.json").exists()
    assert json.loads((tmp_path / "v3" / "seed_1" / "config.json").read_text())["seed"] == 1


def test_finished_runs_are_not_run_again(runs, run_all, capsys):
    run_all(runs[:3])
    drawn = []
    assert run_all(runs, lambda: drawn.append(1)) == (["v3_1"], True)
    assert run_all(runs, lambda: drawn.append(2)) == ([], True)
    assert drawn == [1, 2]
    assert "4 runs, 3 of them finished\n\nrun 4 of 4: v3, seed 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("left", ["config.json", "results.json", "data.json"])
def test_a_run_whose_files_are_cut_off_is_not_finished(runs, run_all, left):
    run_all(runs[:1])
    assert runs[0].results
    file = runs[0].workdir / left
    file.write_text(file.read_text()[:20])
    assert runs[0].results is None
    file.unlink()
    assert runs[0].results is None


def test_a_run_of_another_config_or_length_is_not_finished(runs, run_all):
    (run, *_) = runs
    run_all([run])
    run.config.label_smoothing = 0.2
    assert run.results is None
    run.config.label_smoothing = 0.0
    assert run.results
    # As `start_or_resume` leaves it when a longer run of the directory was begun and interrupted.
    run.config.num_epochs *= 2
    (run.workdir / "config.json").write_text(run.config.to_json())
    assert run.results is None


def test_a_failed_run_does_not_stop_the_others(runs, run_all, capsys):
    errors = {"v2_1": UserError("no such disk"), "v3_0": RuntimeError("out of memory")}
    calls, good = run_all(runs, **errors)
    assert (len(calls), good) == (4, False)
    assert [run.record["error"] for run in runs] == [
        "",
        "UserError: no such disk",
        "RuntimeError: out of memory",
        "",
    ]
    output = capsys.readouterr()
    assert "run 2 of 4 failed: UserError: no such disk" in output.out
    assert "Traceback" in output.err  # of the error that nobody foresaw
    assert "no such disk" not in output.err
    assert "Traceback" in runs[2].record["traceback"]
    assert run_all(runs) == (["v2_1", "v3_0"], True)
    assert runs[2].record["error"] == ""


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_run_of_other_epochs_is_not_made_one_of_these(runs, run_all, factor):
    """Its learning rate followed another schedule: a continued run is not a fresh one."""
    run_all(runs[:1])
    epochs = runs[0].config.num_epochs
    runs[0].config.num_epochs *= factor
    assert run_all(runs[:1]) == ([], False)
    error = runs[0].record["error"]
    assert error.startswith(CheckpointError.__name__)
    assert str(runs[0].workdir) in error
    assert f"a run of {epochs:g} epochs" in error


def test_a_run_whose_directory_cannot_be_written_does_not_stop_the_others(runs, run_all):
    runs[0].workdir.parent.mkdir(parents=True)
    runs[0].workdir.write_text("not a directory")
    calls, good = run_all(runs, v2_0=UserError("cannot be written"))
    assert (len(calls), good) == (4, False)
    assert [bool(run.results) for run in runs] == [False, True, True, True]
    assert runs[0].record["error"] == "UserError: cannot be written"


def test_interruption_stops_everything(runs, run_all):
    with pytest.raises(KeyboardInterrupt):
        run_all(runs, v2_1=KeyboardInterrupt())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--configs=v2,v9"], "configs/v9.py"),
        (["--configs=v2", "--config.optimizer=adam"], "config.optimizer='adam'"),
        (["--configs=v2,v3,", "--seeds=1", "--config.optimizer=adam"], "config.optimizer='adam'"),
        (["--configs=resolution_79", "--on=digits"], "config.image_size"),
    ],
)
def test_main_tells_mistakes_before_it_trains(argv, message, tmp_path, capsys):
    assert _main([*argv, f"--workdir={tmp_path / 'run'}"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_workdir_may_be_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for run in make_runs(load_rows(("v3",), {}), 1, epath.Path(tmp_path) / "run"):
        fake_runs.write_run(run.config, run.workdir, 4, 6)
    assert _main(["--configs=v3", "--seeds=1", "--workdir=~/run"]) == 0
    assert "1 of 1 runs are finished" in (tmp_path / "run" / "report.md").read_text()


def test_a_run_reads_what_the_logbook_writes(runs):
    (run, *_) = runs
    results = fake_runs.write_run(run.config, run.workdir, 4, 6)
    (run.workdir / "metrics.jsonl").unlink()
    with MetricLogger(run.workdir, 0, results["step"], steps_per_epoch=44.90625) as log:
        metrics = {"loss": 1.0, "top1": 0.5, "learning_rate": 0.1}
        log.train(45, 32, metrics)
        log.train(results["step"], 32, metrics | {"top1": 0.75})
        log.evaluation(results["step"], results)
    epochs = results["step"] / 44.90625
    assert run.curve("train/top1") == {45 / 44.90625: 0.5, epochs: 0.75}
    assert run.curve("eval/ema_top1") == {epochs: results["ema"]["top1"]}
    assert run.results == results


@pytest.mark.slow
def test_main_trains_reports_and_then_only_redraws(tmp_path, capsys):
    fields = [*TINY, "num_epochs=0.05", "log_every_steps=2", f"data_dir={tmp_path / 'data'}"]
    argv = ["--configs=v3", "--on=digits", "--seeds=2"]
    argv += [f"--workdir={tmp_path / 'run'}", *(f"--config.{field}" for field in fields)]
    assert _main(argv) == 0
    page = (tmp_path / "run" / "report.md").read_text()
    assert "2 of 2 runs are finished" in page
    assert "1,437 images to train on, 360 of validation to evaluate" in page
    assert f"python -m inception.ablation {argv[0]}" in page
    pictures = {file: file.read_bytes() for file in (tmp_path / "run").glob("*.png")}
    assert len(pictures) == 2
    for file in [*pictures, tmp_path / "run" / "report.md"]:
        file.unlink()
    capsys.readouterr()
    assert _main(argv) == 0
    assert "2 runs, 2 of them finished\n\n" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.md").read_text() == page
    assert pictures == {file: file.read_bytes() for file in pictures}
