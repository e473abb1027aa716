"""A workdir belongs to one config and its data."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import inception
from inception.errors import CheckpointError, UserError
from inception.weights import load_any
from inception.workdir.digests import DamagedCheckpoint
from inception.workdir.identity import (
    check_classes,
    check_model,
    check_resumable,
    read_config,
    resolve_checkpoint,
    resolve_workdir,
    start_or_resume,
)
from inception.workdir.restore import restore_run
from tests import fake_runs


@pytest.fixture
def data(digits):
    """What the run trains on."""
    return digits(slice(0, 64))


@pytest.fixture
def workdir(tmp_path):
    """A workdir in which something was trained."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    return tmp_path


def test_a_workdir_that_cannot_be_written(tmp_path, tiny, data):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        start_or_resume(tmp_path / "file" / "below", tiny(), data)


def test_a_workdir_belongs_to_its_config(tmp_path, tiny, data):
    start_or_resume(tmp_path, tiny("seed=1"), data)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    allowed = "num_epochs=99.0", "eval.crops=12", "on_bad_record=skip", "max_pixels=1000000"
    start_or_resume(tmp_path, tiny("seed=1", *allowed), data)
    with pytest.raises(CheckpointError) as error:
        start_or_resume(tmp_path, tiny("seed=2", "model.stem=7x7", "num_epochs=3.0"), data)
    assert "config.seed: 1 in the workdir, 2 now" in str(error.value)
    assert "config.model.stem: 'factorized' in the workdir, '7x7' now" in str(error.value)
    assert "num_epochs" not in str(error.value)


def test_a_run_that_has_not_trained_may_be_replaced(tmp_path, tiny, data):
    start_or_resume(tmp_path, tiny("seed=1"), data)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text("")
    start_or_resume(tmp_path, tiny("seed=2"), data)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2


def test_a_run_does_not_go_on_with_more_images(tmp_path, tiny, digits, data):
    start_or_resume(tmp_path, tiny(), data)
    start_or_resume(tmp_path, tiny(), digits(slice(0, 65)))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="trains on 65 images and the data now has 64"):
        start_or_resume(tmp_path, tiny(), data)


def test_a_run_does_not_go_on_with_other_classes(workdir, tiny, data):
    (workdir / "config.json").write_text(json.dumps(tiny().to_dict()))
    for classes, message in (
        ([*map(str, range(9)), "ten"], "lists other classes .*10 and 10.*'9', 'ten'"),
        (["0", "2", "1", *map(str, range(3, 10))], "their order differs"),
    ):
        (workdir / "data.json").write_text(json.dumps({"classes": classes}))
        with pytest.raises(CheckpointError, match=message):
            check_resumable(workdir, tiny(), data)


def test_damaged_files_are_named(workdir, tiny, data):
    (workdir / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not a valid config"):
        check_resumable(workdir, tiny(), data)
    whole = tiny().to_dict()
    for damage in ({"format": "2"}, {"seed": "0"}, {"seed": None}, {"model": 3}):
        (workdir / "config.json").write_text(json.dumps({**whole, **damage}))
        with pytest.raises(CheckpointError, match=r"config\.json .*(format|seed|model)"):
            check_resumable(workdir, tiny(), data)
    (workdir / "config.json").write_text(json.dumps(tiny().to_dict()))
    (workdir / "data.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"data\.json is damaged"):
        check_resumable(workdir, tiny(), data)


def test_evaluation_asks_only_for_the_same_network(tmp_path, tiny, data):
    (tmp_path / "file").write_text("")
    for nothing in (tmp_path, tmp_path / "file"):
        with pytest.raises(CheckpointError, match="holds no run"):
            check_model(nothing, tiny())
    start_or_resume(tmp_path, tiny(), data)
    check_model(tmp_path, tiny("batch_size=32", "image_size=99"))
    with pytest.raises(CheckpointError, match=r"config\.model\.aux_head"):
        check_model(tmp_path, tiny("model.aux_head=none"))


@pytest.fixture(scope="module")
def trained(tiny, digits, tmp_path_factory):
    """A run of one step."""
    workdir = tmp_path_factory.mktemp("trained")
    fake_runs.write_checkpoint(tiny(), workdir, digits(slice(0, 40)))
    return workdir


def test_a_run_is_restored_without_its_data_or_optimizer(trained):
    run = restore_run(trained)
    assert (run.step, run.model.num_classes, run.preprocessing.image_size) == (1, 10, 75)
    assert run.class_names == tuple(map(str, range(10)))
    assert set(run.weights) == {"params", "batch_stats", "ema_params", "ema_batch_stats"}
    chosen = restore_run(trained / "checkpoints" / "1")
    for weights in ("ema", "raw"):
        jax.tree.map(
            np.testing.assert_array_equal, run.variables(weights), chosen.variables(weights)
        )


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_unless_it_is_asked_for(trained, digits, capsys):
    newest = trained / "checkpoints" / "2"
    shutil.copytree(trained / "checkpoints" / "1", newest)
    (newest / "default" / "manifest.ocdbt").write_bytes(b"")
    config, held_out = read_config(trained), digits(slice(40, 44))
    try:
        assert restore_run(trained).step == 1
        assert "checkpoints/2 is damaged" in capsys.readouterr().out
        assert load_any(str(trained)).source.endswith("checkpoints/1")
        assert inception.evaluate_run(config, trained, source=held_out)["step"] == 1
        for refuse in (
            lambda: restore_run(trained, 2),
            lambda: load_any(str(newest)),
            lambda: inception.evaluate_run(config, trained, 2, held_out),
        ):
            with pytest.raises(DamagedCheckpoint, match=r"checkpoints/2 is damaged: .*\[1\]"):
                refuse()
    finally:
        shutil.rmtree(newest)


def test_a_run_may_be_called_as_a_checkpoint_is(trained, tmp_path):
    run = tmp_path / "checkpoints" / "77"
    shutil.copytree(trained, run)
    assert restore_run(run).workdir == run
    assert load_any(run / "checkpoints" / "1").source == load_any(run).source
    assert load_any(run).source == str(run / "checkpoints" / "1")


def test_weights_are_restored_whatever_the_optimizer_was(trained):
    """A config.json that names another optimizer than the checkpoint's stands in for old code."""
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps({**config, "optimizer": "momentum"}))
    assert restore_run(trained).step == 1
    (trained / "config.json").write_text(json.dumps(config))


def test_classes_in_another_order_are_refused_and_other_names_warned_of(data, digits, capsys):
    check_classes("runs/a", data.class_names, data)
    check_classes("runs/a", (), data)
    assert not capsys.readouterr().out
    with pytest.raises(CheckpointError, match="class 0 is '9' for runs/a and '0'"):
        check_classes("runs/a", data.class_names[::-1], data)
    check_classes("runs/a", ("null", *data.class_names[1:]), data)
    assert "'null'" in capsys.readouterr().out


def test_checkpoints_without_a_config_are_not_taken_over(tmp_path, tiny, data):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        start_or_resume(tmp_path, tiny(), data)


def test_files_of_newer_versions_are_refused_by_their_format(tmp_path, tiny, data):
    start_or_resume(tmp_path, tiny(), data)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["format"] == 2
    (tmp_path / "config.json").write_text(json.dumps({**stored, "format": 3}))
    with pytest.raises(CheckpointError, match=r"config\.json has format 3"):
        read_config(tmp_path)


def test_named_evaluations_are_kept_and_may_change(workdir, tiny, data):
    config = tiny("evaluations.train.split=train")
    start_or_resume(workdir.parent / "new", config, data)
    assert read_config(workdir.parent / "new").evaluations.train.split == "train"
    (workdir.parent / "new" / "metrics.jsonl").write_text('{"step": 1}\n')
    check_resumable(workdir.parent / "new", tiny("evaluations.other.crops=12"), data)


def test_paths_of_workdirs_and_checkpoints(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(resolve_workdir("~/run")) == "/home/me/run"
    assert resolve_checkpoint("runs/a/checkpoints/90") == (Path("runs/a").absolute(), 90)
    assert resolve_checkpoint("/runs/a") == (Path("/runs/a"), None)
    run = tmp_path / "checkpoints" / "90"  # as Slurm's number of a job is
    run.mkdir(parents=True)
    assert resolve_checkpoint(run) == (tmp_path, 90)
    (run / "config.json").touch()
    assert resolve_checkpoint(run) == (run, None)
    assert resolve_checkpoint(run / "checkpoints" / "7") == (run, 7)
    with pytest.raises(CheckpointError, match=r"ftp://host/run.*gs://"):
        resolve_workdir("ftp://host/run")
    with pytest.raises(CheckpointError, match="write gs://bucket/run"):
        resolve_workdir("gs:/bucket/run")  # what pathlib makes of an address


def test_buckets_that_cannot_be_reached_are_one_error(monkeypatch):
    def fail_with(error):
        def exists(_):
            raise error

        monkeypatch.setattr("etils.epath.gpath.PosixGPath.exists", exists)

    fail_with(RuntimeError("no credentials"))
    with pytest.raises(CheckpointError, match=r"gs://bucket/run .*no credentials"):
        resolve_workdir("gs://bucket/run")
    fail_with(ImportError("s3fs"))
    with pytest.raises(CheckpointError, match=r"pip install s3fs"):
        resolve_workdir("s3://bucket/run")
