"""One run at a time in a workdir, on a disk and where nothing can be locked."""

import errno
import json
import os
import signal

import pytest

import inception
from inception import lock
from inception.errors import CheckpointError
from tests import processes

HOLD = """
import sys, time, inception
from inception.lock import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def _refused(workdir, message: str) -> None:
    with pytest.raises(CheckpointError, match=message), lock.only_run(workdir):
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
    with lock.only_run(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    with lock.only_run(tmp_path):  # an error and an end in order let go of it, too
        pass


def test_training_is_refused_before_anything_is_written(tmp_path, tiny, digits):
    data = digits(slice(0, 40)), digits(slice(40, 44))
    with lock.only_run(tmp_path), pytest.raises(CheckpointError, match="trains in"):
        inception.train_and_evaluate(tiny(), tmp_path, *data)
    assert [file.name for file in tmp_path.iterdir()] == ["run.lock"]


def test_two_threads_are_two(tmp_path):
    with lock.only_run(tmp_path):
        _refused(tmp_path, str(os.getpid()))


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match="cannot be written"),
        lock.only_run(tmp_path / "file"),
    ):
        pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    with lock.only_run(tmp_path):
        assert "start only one run" in capsys.readouterr().out


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that is treated as a bucket, with a quick heart."""
    monkeypatch.setattr(lock, "is_local", lambda _: False)
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "PATIENCE", 0.4)
    return tmp_path


def test_in_a_bucket_the_second_is_refused_while_the_first_lives(bucket):
    with lock.only_run(bucket):
        _refused(bucket, str(os.getpid()))
    assert not (bucket / "run.lock").exists()


def test_in_a_bucket_the_dead_are_waited_for(bucket, capsys):
    (bucket / "run.lock").write_text('{"pid": 7, "host": "gone"}')
    with lock.only_run(bucket):
        assert json.loads((bucket / "run.lock").read_text())["pid"] == os.getpid()
    assert "process 7 on gone" in capsys.readouterr().out


def test_a_name_that_is_half_written_is_taken_from_the_other_reading():
    whole = lock._who()
    assert lock._name(whole[:9], whole) == lock._name(whole) != "another process"
    assert lock._name("", whole[:9]) == "another process"
