"""The doctor's command: its table and its exit status."""

import jax
import pytest

import inception
import main as main_program
from inception import command_line
from inception.doctor import __main__ as doctor
from inception.doctor import speed
from tests.conftest import TINY

STATUSES = ("PASS", "WARN", "FAIL")


def _main(argv):
    return command_line.run(lambda: doctor.main(argv))


@pytest.mark.slow
def test_the_quick_start_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.3)
    workdir = tmp_path / "runs" / "digits"
    overrides = [f"--config.{each}" for each in (*TINY, f"data_dir={tmp_path / 'data'}")]
    assert _main(["--config=configs/digits.py", f"--workdir={workdir}", *overrides]) == 0
    table = capsys.readouterr().out
    rows = {line[6:23].strip(): line for line in table.splitlines() if line[:4] in STATUSES}
    assert list(rows) == [
        *("devices", "versions", "training data", "evaluation data", "batch", "workdir", "files"),
        *("disk", "input speed", "step speed", "memory", "bottleneck", "duration"),
    ]
    assert {line[:4] for line in rows.values()} == {"PASS"}
    assert "digits:train: 1,437 images, 10 classes" in rows["training data"]
    assert "digits:validation: 360 images, 10 classes" in rows["evaluation data"]
    assert f"jax {jax.__version__}" in rows["versions"]
    epochs = inception.load_config("configs/digits.py").num_epochs
    assert f"for {epochs:.0f} epochs" in rows["duration"]
    assert table.endswith("The run can start.\n")
    assert not workdir.parent.exists()


def test_missing_data_is_reported_as_by_the_run_itself(tmp_path, capsys):
    command = ["--config=configs/v3.py", f"--workdir={tmp_path}", f"--config.data_dir={tmp_path}"]
    assert command_line.run(lambda: main_program.main(command)) == 1
    error = capsys.readouterr().err.removeprefix("error: ")
    assert "ILSVRC2012_img_train.tar" in error
    assert _main(command) == 1
    table = capsys.readouterr().out
    assert " ".join(error.split()) in " ".join(table.split())
    assert "as above" in table  # rather than the same again for the evaluation split
    assert "input speed" not in table  # nothing is measured in vain
    assert table.endswith("The run could not start.\n")
