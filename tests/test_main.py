"""main.py as a user runs it: train, continue, evaluate, and errors of one line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from inception.errors import EX_TEMPFAIL
from tests.conftest import TINY

# Staircase decay: then the compiled program does not depend on the number of epochs.
SHORT = [f"--config.{field}" for field in (*TINY, "schedule=staircase", "log_every_steps=2")]


def _main(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "main.py", *map(str, args)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the real digits data set, prepared on first use."""
    folder = tmp_path_factory.mktemp("main")
    args = ["--config=configs/digits.py", f"--workdir={folder}/run", *SHORT]
    args += [f"--config.data_dir={folder}/data"]
    return args, folder / "run", _main(*args, "--config.num_epochs=0.05")


def test_training_prints_progress_and_leaves_results(run):
    _, workdir, process = run
    assert process.returncode == 0, process.stderr
    assert "images/s" in process.stdout
    results = json.loads((workdir / "results.json").read_text())
    assert results["step"] == 4
    assert results["examples"] == 360
    assert process.stdout.count("validation (360 images)") == 1


def test_the_same_command_continues_and_then_says_it_is_finished(run):
    args, _, _ = run
    longer = _main(*args, "--config.num_epochs=0.07")
    assert longer.returncode == 0, longer.stderr
    assert "continuing from step 4" in longer.stdout
    again = _main(*args, "--config.num_epochs=0.07")
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stdout
    assert again.stdout.count("validation (360 images)") == 1


def test_eval_mode_evaluates_the_newest_or_a_chosen_checkpoint(run):
    args, workdir, _ = run
    process = _main(*args, "--mode=eval", "--step=4")
    assert process.returncode == 0, process.stderr
    results = json.loads((workdir / "eval_validation_4.json").read_text())
    assert results["examples"] == 360
    missing = _main(*args, "--mode=eval", "--step=5")
    assert missing.returncode == 1
    assert "step 5" in missing.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, EX_TEMPFAIL)],
)
def test_an_interrupted_run_keeps_its_last_step(tmp_path, sent, status):
    arguments = ["--config=configs/digits.py", f"--workdir={tmp_path}/run", *SHORT]
    arguments += [f"--config.data_dir={tmp_path}/data"]
    command = [sys.executable, "main.py", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout
        next(line for line in process.stdout if line.startswith("step 2/"))
        process.send_signal(sent)
        output = process.stdout.read()
    assert process.returncode == status
    assert "Traceback" not in output
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert int(saved.name) == json.loads(lines[-1])["step"] >= 2


@pytest.mark.slow
def test_a_step_is_for_evaluation(tmp_path):
    process = _main("--config=configs/digits.py", f"--workdir={tmp_path}/run", "--step=4")
    assert process.returncode == 2
    assert "--step is for --mode=eval" in process.stderr


def test_a_replay_needs_a_step(tmp_path):
    process = _main("--config=configs/digits.py", f"--workdir={tmp_path}/run", "--mode=replay")
    assert process.returncode == 2
    assert "--mode=replay needs --step=N" in process.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config=configs/v9.py"], "configs/v9.py does not exist"),
        (["--config=configs/v3.py", "--config.batchsize=3"], "did you mean config.batch_size?"),
        (["--config=configs/v3.py", "--config.data_dir=/nowhere"], "inception.data.prepare"),
        (["--config=configs/digits.py", "--config.batch_size=x"], "not of type int"),
        (["--config=configs/digits.py", "--distributed"], "needs --coordinator=HOST:PORT"),
        (["--config=configs/digits.py", "--process_id=1"], "--process_id=1 alone is not enough"),
    ],
)
def test_errors_are_one_message_without_a_trace(tmp_path, args, message):
    process = _main(*args, f"--workdir={tmp_path}/run")
    assert process.returncode == 1
    assert message in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_second_start_reaches_its_first_step_in_a_third_of_the_time(tmp_path):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}

    def seconds(name: str) -> float:
        command = [sys.executable, "main.py", "--config=configs/digits.py"]
        command += [f"--workdir={tmp_path / name}", "--config.log_every_steps=1"]
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if line.startswith("step 1/"):
                    break
            process.kill()
        return time.perf_counter() - start

    cold, warm = seconds("cold"), seconds("warm")
    print(f"\nfirst step after {cold:.1f} s, then {warm:.1f} s: {warm / cold:.2f}")
    assert warm < cold / 3
