"""One run at a time in a workdir, on a disk and where nothing can be locked."""

import errno
import json
import os
import signal
import socket
import time

import pytest

import inception
from inception.errors import CheckpointError
from inception.workdir import lock
from tests import processes

HOLD = """
import sys, time, inception
from inception.workdir.lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _refused(workdir, message: str) -> None:
    with pytest.raises(CheckpointError, match=message), lock.run_lock(workdir):
        pass


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path."""
    process = processes.start(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused_by_the_name_of_the_first_until_it_dies(tmp_path, holder):
    _refused(tmp_path, f"process {holder.pid} on .* trains in")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock.run_lock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    with lock.run_lock(tmp_path):  # an error and an end in order let go of it, too
        pass


def test_training_is_refused_before_anything_is_written(tmp_path, tiny, digits):
    data = digits(slice(0, 40)), digits(slice(40, 44))
    with lock.run_lock(tmp_path), pytest.raises(CheckpointError, match="trains in"):
        inception.train_and_evaluate(tiny(), tmp_path, *data)
    assert [file.name for file in tmp_path.iterdir()] == ["run.lock"]


def test_two_threads_are_two(tmp_path):
    with lock.run_lock(tmp_path):
        _refused(tmp_path, str(os.getpid()))


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match="cannot be written"),
        lock.run_lock(tmp_path / "file"),
    ):
        pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    with lock.run_lock(tmp_path):
        assert "start only one run" in capsys.readouterr().out


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that is treated as a bucket, with a quick heart."""
    monkeypatch.setattr(lock, "is_local", lambda _: False)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.4)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.01)
    return tmp_path


def test_in_a_bucket_the_second_is_refused_while_the_first_lives(bucket):
    with lock.run_lock(bucket):
        _refused(bucket, str(os.getpid()))
    assert not (bucket / "run.lock").exists()


def test_in_a_bucket_the_dead_are_waited_for(bucket, capsys):
    (bucket / "run.lock").write_text('{"pid": 7, "host": "gone"}')
    with lock.run_lock(bucket):
        assert json.loads((bucket / "run.lock").read_text())["pid"] == os.getpid()
    assert "process 7 on gone" in capsys.readouterr().out


OTHER = '{"pid": 7, "host": "other", "id": "x"}'


def test_in_a_bucket_who_was_away_is_told_and_leaves_the_others_lock(bucket):
    """Another run has entered while this one could not reach the bucket."""
    with lock.run_lock(bucket) as check:
        check()
        (bucket / "run.lock").write_text(OTHER)
        with pytest.raises(CheckpointError, match=r"process 7 on other took over .*saved nothing"):
            _until(check)
    assert (bucket / "run.lock").read_text() == OTHER


def _until(check):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        check()
        time.sleep(0.01)


def test_in_a_bucket_a_lock_that_is_gone_is_another_runs(bucket):
    """It has entered, and ended, meanwhile."""
    with lock.run_lock(bucket) as check:
        (bucket / "run.lock").unlink()
        with pytest.raises(CheckpointError, match="another process took over"):
            _until(check)
    assert not (bucket / "run.lock").exists()


def test_in_a_bucket_a_late_beat_is_made_up_before_anything_is_written(bucket, monkeypatch):
    """A machine that was asleep: its heart has not beaten yet, and its run wants to save."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 20.0)
    with lock.run_lock(bucket) as check:
        (bucket / "run.lock").write_text(OTHER)
        check()  # it was read a moment ago, and nobody is taken for dead so soon
        now = time.time()
        monkeypatch.setattr(lock.time, "time", lambda: now + 41)
        with pytest.raises(CheckpointError, match="process 7 on other"):
            check()
        # The next beat, in 20 seconds, is not waited for.
    assert (bucket / "run.lock").read_text() == OTHER


def test_in_a_bucket_the_last_of_two_heirs_has_the_lock(bucket, monkeypatch):
    """Both have waited for the same dead one, and the other writes last."""
    (bucket / "run.lock").write_text('{"pid": 7, "host": "gone"}')
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.123)
    sleep = time.sleep

    def write_last(seconds):
        sleep(seconds)
        if seconds == 0.123:
            (bucket / "run.lock").write_text(OTHER)

    monkeypatch.setattr(lock.time, "sleep", write_last)
    _refused(bucket, "process 7 on other trains in")
    assert (bucket / "run.lock").read_text() == OTHER


def test_an_identity_that_is_half_written_names_another_process():
    whole = lock._identity()
    assert lock._name(whole) == f"process {os.getpid()} on {socket.gethostname()}"
    assert lock._name(whole[:9]) == lock._name("") == "another process"
