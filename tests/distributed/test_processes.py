"""Several processes of main.py: they find each other, stop together, and none is left waiting."""

import json
import signal
import time
from pathlib import Path

import pytest
from jax.errors import JaxRuntimeError

from inception.distributed import processes
from inception.errors import EX_TEMPFAIL, CheckpointError, ConfigError
from tests.conftest import TINY
from tests.processes import ends, saved_steps, start_main, start_together

# As in test_main.py, so that the programs of one device are compiled once.
RUN = [
    "--config=configs/digits.py",
    *(f"--config.{field}" for field in (*TINY, "schedule=staircase", "log_every_steps=2")),
]
ENDLESS = "--config.num_epochs=1000"


def _wait_for_steps(workdir: Path, started: list, seconds: float = 400) -> None:
    """Waits until a run has logged two steps more than it had."""
    before, until = _logged(workdir), time.monotonic() + seconds
    while _logged(workdir) < before + 1:
        assert time.monotonic() < until
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)


def _logged(workdir: Path) -> int:
    file = workdir / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ((True, "host:1", None, None), ("--coordinator=host:1", "--distributed")),
        ((True, None, None, 1), ("--process_id=1", "--distributed")),
        ((False, "host:1", None, None), ("--coordinator=host:1", "--num_processes=N")),
        ((False, None, 2, 0), ("--num_processes=2 --process_id=0", "--coordinator=HOST:PORT")),
        ((False, "host", 2, 0), ("--coordinator=host", "HOST:PORT")),
        ((False, ":80", 2, 0), ("--coordinator=:80", "HOST:PORT")),
        ((False, "host:70000", 2, 0), ("--coordinator=host:70000", "HOST:PORT")),
        ((False, "host:1", 2, 2), ("--num_processes=2 --process_id=2",)),
        ((False, "host:1", 0, 0), ("--num_processes=0 --process_id=0",)),
        ((False, "host:1", 2, -1), ("--num_processes=2 --process_id=-1",)),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, named):
    with pytest.raises(ConfigError) as error:
        processes.connect(*flags)
    for part in named:
        assert part in str(error.value)


def test_an_environment_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(ConfigError, match="JAX_PROCESS_ID='one'"):
        processes.connect()


def test_one_process_has_no_name_and_ends_as_usual():
    processes.connect(False)
    assert processes.process_index_and_count() == (0, 1)
    assert processes.name() == ""
    processes.exit_together(1)
    processes.exit_if_peer_lost(RuntimeError("mine"))


def test_errors_of_a_lost_process_end_this_one_at_once(monkeypatch, caplog):
    statuses: list[int] = []
    monkeypatch.setattr(processes, "_exit", statuses.append)
    lost = CheckpointError("step 3 cannot be saved")
    lost.__cause__ = JaxRuntimeError("UNAVAILABLE: barrier\nmore")
    processes.exit_if_peer_lost(lost)  # alone, there is nobody to be lost
    monkeypatch.setattr(processes, "process_index_and_count", lambda: (0, 2))
    full = CheckpointError("step 3 cannot be saved")
    full.__cause__ = OSError("disk full")
    for error in (
        full,
        ValueError("mine: UNKNOWN: x"),
        JaxRuntimeError("RESOURCE_EXHAUSTED: memory"),
    ):
        processes.exit_if_peer_lost(error)
    assert statuses == []
    processes.exit_if_peer_lost(lost)
    assert statuses == [EX_TEMPFAIL]
    assert "another process has stopped" in caplog.text
    assert "(UNAVAILABLE: barrier)" in caplog.text
    processes.exit_if_peer_lost(ValueError("UNKNOWN: Gloo all-reduce failed"))
    assert statuses == [EX_TEMPFAIL] * 2


def test_processes_of_other_configs_are_refused_and_write_nothing(tmp_path):
    own = {1: ["--config.seed=3", "--config.data_threads=1"]}
    for number, (status, output) in enumerate(
        ends(start_main(2, *RUN, f"--workdir={tmp_path}/run", own=own), within=60)
    ):
        assert status == 1
        assert "config.seed is 0 in process 0 and 3 in process 1" in output
        assert f"[process {number}/2] error: " in output
        assert "Traceback" not in output
        assert "data_threads" not in output
    assert not (tmp_path / "run").exists()


def test_a_process_that_fails_at_the_start_does_not_leave_the_other_waiting(tmp_path):
    own = {1: ["--config.split=nothing"]}
    (status, output), (_, reason) = ends(
        start_main(2, *RUN, f"--workdir={tmp_path}/run", own=own), within=60
    )
    assert status == EX_TEMPFAIL
    assert "[process 1/2] has stopped with status 1" in output
    assert "[process 1/2] error: " in reason
    assert "'nothing'" in reason
    assert not (tmp_path / "run").exists()


# The loop of a run around a sum instead of a network, which compiles at once.
_LOOP = """
import pathlib, sys, time
import jax, numpy as np
from inception import command_line
from inception.distributed import processes, sharding
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.distributed.preemption import Interrupted, preemption

def main():
    processes.connect()
    mesh = sharding.make_mesh()
    add = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(mesh))
    numbers = jax.make_array_from_process_local_data(sharding.split(mesh), np.ones(4, np.float32))
    with CheckpointWriter(sys.argv[1]) as saved, preemption() as stop:
        for step in range(1, 10**5):
            total = jax.block_until_ready(add(numbers))
            if stop():
                saved.save(step, {"total": total})
                raise Interrupted(f"{processes.name()}stopped at step {step}")
            if step == 3:
                pathlib.Path(sys.argv[1], f"runs{processes.process_index_and_count()[0]}").touch()
            time.sleep(0.01)

sys.exit(command_line.run(main))
"""


def _start_loop(workdir: Path, count: int) -> list:
    started = start_together(count, _LOOP, workdir, stderr=True)
    until = time.monotonic() + 60
    while not all((workdir / f"runs{number}").exists() for number in range(count)):
        assert time.monotonic() < until
        time.sleep(0.02)
    return started


@pytest.mark.parametrize(
    ("count", "sent"),
    [
        (2, signal.SIGTERM),
        (2, signal.SIGINT),
        pytest.param(4, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_process_makes_all_save_the_same_step(tmp_path, count, sent):
    started = _start_loop(tmp_path, count)
    started[1].send_signal(sent)
    outputs = ends(started, within=60)
    (step,) = saved_steps(tmp_path)
    assert [status for status, _ in outputs] == [EX_TEMPFAIL] * count
    for number, (_, text) in enumerate(outputs):
        assert f"[process {number}/{count}] stopped at step {step}" in text


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_at_once_with_a_message(tmp_path, lost):
    started = _start_loop(tmp_path, 2)
    started[lost].kill()
    killed = time.monotonic()
    status, text = ends(started, within=60)[1 - lost]
    assert time.monotonic() - killed < 20
    # JAX itself ends the others when process 0 is gone, which keeps the coordination service.
    assert status in (EX_TEMPFAIL, -signal.SIGABRT), text
    assert "another process has stopped" in text or "another task died" in text


@pytest.mark.slow
def test_sigterm_to_one_process_makes_all_save_the_same_step(tmp_path):
    """And one process alone goes on from there."""
    workdir = tmp_path / "run"
    arguments = [*RUN, f"--workdir={workdir}"]
    started = start_main(2, *arguments, ENDLESS)
    _wait_for_steps(workdir, started)
    started[1].send_signal(signal.SIGTERM)
    (first, first_output), (second, second_output) = ends(started, within=60)
    (step,) = saved_steps(workdir)
    assert (first, second) == (EX_TEMPFAIL, EX_TEMPFAIL)
    assert f"[process 0/2] stopped at step {step}" in first_output
    assert f"[process 1/2] stopped at step {step}" in second_output
    assert "images/s" not in second_output  # only process 0 reports and writes
    assert len(list(workdir.glob("events.out.tfevents.*"))) == 1
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == step
    ((status, output),) = ends(
        start_main(1, *arguments, f"--config.num_epochs={(step + 1) * 16 / 1437}"), within=400
    )
    assert status == 0
    assert f"continuing from step {step}" in output
    assert json.loads((workdir / "results.json").read_text())["examples"] == 360


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_other_and_the_restart_continues(tmp_path, lost):
    workdir = tmp_path / "run"
    arguments = [*RUN, f"--workdir={workdir}", ENDLESS, "--config.checkpoint_every_steps=2"]
    started = start_main(2, *arguments)
    _wait_for_steps(workdir, started)
    started[lost].kill()
    killed = time.monotonic()
    status, output = ends(started, within=processes.HEARTBEAT_TIMEOUT + 30)[1 - lost]
    print(f"\nkill -9 of process {lost}: the other ended after {time.monotonic() - killed:.1f} s")
    # JAX aborts the others at once when process 0, with the coordination service, is gone, and
    # when another one has given no sign of life for HEARTBEAT_TIMEOUT.
    assert status in (EX_TEMPFAIL, -signal.SIGABRT), output
    assert "another process has stopped" in output or "another task died" in output
    again = start_main(2, *arguments)
    _wait_for_steps(workdir, again)
    again[0].send_signal(signal.SIGTERM)
    for status, _ in ends(again, within=60):
        assert status == EX_TEMPFAIL
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others_within_the_heartbeats_time(tmp_path):
    workdir = tmp_path / "run"
    started = start_main(2, *RUN, f"--workdir={workdir}", ENDLESS)
    _wait_for_steps(workdir, started)
    started[1].send_signal(signal.SIGSTOP)
    started[0].communicate(timeout=processes.HEARTBEAT_TIMEOUT + 30)
    assert started[0].returncode in (EX_TEMPFAIL, -signal.SIGABRT)
    started[1].kill()


@pytest.mark.slow
def test_checkpoints_continue_on_other_numbers_of_processes_and_devices(tmp_path):
    """Of 2 processes on 1, 4 and 8 devices, then of 8 devices in 2 and in 4 processes."""
    workdir = tmp_path / "run"
    arguments = [*RUN, f"--workdir={workdir}", "--config.checkpoint_every_steps=2"]
    for turn, (count, devices) in enumerate([(2, 1), (1, 1), (1, 4), (1, 8), (2, 1), (4, 1)]):
        epochs = f"--config.num_epochs={(2 * turn + 2.01) * 16 / 1437}"
        outputs = ends(start_main(count, *arguments, epochs, devices=devices), within=500)
        assert [status for status, _ in outputs] == [0] * count, outputs
        assert turn == 0 or f"continuing from step {2 * turn}" in outputs[0][1]
        assert json.loads((workdir / "results.json").read_text())["examples"] == 360
    assert [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()][-1] == 12
