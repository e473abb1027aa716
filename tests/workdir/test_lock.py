"""One run at a time in a workdir, on a disk and where nothing can be locked."""

import errno
import json
import os
import re
import signal
import socket
import threading
import time

import pytest
from fsspec.implementations.local import LocalFileSystem

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


def refusal(workdir) -> str:
    """What a run is told that may not train in a workdir; nothing if it may."""
    try:
        with lock.run_lock(workdir):
            return ""
    except CheckpointError as error:
        return str(error)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path."""
    process = processes.start(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused_by_the_name_of_the_first_until_it_dies(tmp_path, holder):
    assert re.search(f"process {holder.pid} on .* trains in", refusal(tmp_path))
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
        assert str(os.getpid()) in refusal(tmp_path)


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(tmp_path / "file")


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


def _locks(bucket) -> list[str]:
    return sorted(file.name for file in bucket.iterdir())


def test_in_a_bucket_the_second_is_refused_while_the_first_lives(bucket):
    with lock.run_lock(bucket):
        for _ in range(2):  # the folder is no bucket: its file can be seen half written
            told = f"(process {os.getpid()} on .*|another process) trains in"
            assert re.search(told, refusal(bucket))
    start = time.monotonic()
    with lock.run_lock(bucket):  # released, so there is nothing to wait for
        assert time.monotonic() - start < lock.STALE_SECONDS
        assert _locks(bucket) == ["run.lock.1"]


GONE = '{"pid": 7, "host": "gone"}'
OTHER = '{"pid": 7, "host": "other", "id": "x"}'


def test_in_a_bucket_the_dead_are_waited_for(bucket, capsys):
    (bucket / "run.lock").write_text(GONE)
    with lock.run_lock(bucket):
        assert json.loads((bucket / "run.lock.1").read_text())["pid"] == os.getpid()
        assert _locks(bucket) == ["run.lock.1"]
    assert "process 7 on gone" in capsys.readouterr().out


def test_in_a_bucket_who_was_away_is_told_and_leaves_the_others_lock(bucket):
    """Another run has entered while this one could not reach the bucket."""
    with lock.run_lock(bucket) as check:
        check()
        (bucket / "run.lock.1").write_text(OTHER)
        with pytest.raises(CheckpointError, match=r"process 7 on other took over .*saved nothing"):
            _until(check)
    assert (bucket / "run.lock.1").read_text() == OTHER


def _until(check):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        check()
        time.sleep(0.01)


def test_in_a_bucket_a_lock_that_is_gone_is_another_runs(bucket):
    with lock.run_lock(bucket) as check:
        (bucket / "run.lock").unlink()
        with pytest.raises(CheckpointError, match="another process took over"):
            _until(check)
    assert not _locks(bucket)


def test_in_a_bucket_a_late_beat_is_made_up_before_anything_is_written(bucket, monkeypatch):
    """A machine that was asleep: its heart has not beaten yet, and its run wants to save."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 20.0)
    with lock.run_lock(bucket) as check:
        (bucket / "run.lock.1").write_text(OTHER)
        check()  # it was read a moment ago, and nobody is taken for dead so soon
        now = time.time()
        monkeypatch.setattr(lock.time, "time", lambda: now + 41)
        with pytest.raises(CheckpointError, match="process 7 on other"):
            check()
        # The next beat, in 20 seconds, is not waited for.
    assert (bucket / "run.lock.1").read_text() == OTHER


def test_in_a_bucket_who_is_paused_within_a_beat_does_not_take_the_lock_back(bucket, monkeypatch):
    """Between reading and writing: meanwhile another run waits, enters and trains."""
    paused = lock._BucketLock(bucket / "run.lock")
    paused.acquire()
    write = paused._write

    def write_late():
        monkeypatch.setattr(paused, "_write", write)
        successor.acquire()
        write()

    successor = lock._BucketLock(bucket / "run.lock")
    monkeypatch.setattr(paused, "_write", write_late)
    paused.renew()
    successor.renew()
    successor.check()
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", -1.0)  # every check looks
    successor.check()
    with pytest.raises(CheckpointError, match="took over"):
        paused.check()
    paused.release()
    beat = threading.Timer(lock.STALE_SECONDS / 4, successor.renew)
    beat.start()
    assert "trains in" in refusal(bucket)  # a third run sees the second one's heart beat
    beat.join()


def test_in_a_bucket_nothing_is_written_while_the_lock_cannot_be_read(bucket, monkeypatch, capsys):
    """Longer than others wait: the check returns when the bucket is back, or gives up."""
    with lock.run_lock(bucket) as check:
        monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
        ls, failures = LocalFileSystem.ls, iter(range(5))

        def fail(*args, **options):
            if next(failures, None) is not None:
                raise OSError("no route to the bucket")
            return ls(*args, **options)

        monkeypatch.setattr(LocalFileSystem, "ls", fail)
        later = time.time() + 70
        monkeypatch.setattr(lock.time, "time", lambda: later)
        check()
        assert next(failures, None) is None
        assert "waiting for" in capsys.readouterr().out
        monkeypatch.setattr(LocalFileSystem, "ls", lambda *_, **__: (_ for _ in ()).throw(OSError))
        monkeypatch.setattr(lock.time, "time", lambda: later + 70)
        monkeypatch.setattr(lock, "OUTAGE_SECONDS", 0.05)
        with pytest.raises(CheckpointError, match="could not be reached for 70 s"):
            check()


@pytest.mark.parametrize(
    ("seen", "others"),
    [("run.lock", "run.lock.1"), (None, "run.lock.5")],
    ids=["both waited for the same dead one", "others have come and gone since"],
)
def test_in_a_bucket_who_creates_its_file_second_has_no_lock(bucket, monkeypatch, seen, others):
    if seen:
        (bucket / seen).write_text(GONE)
    create = lock._BucketLock._create

    def create_second(self):
        (bucket / others).write_text(OTHER)
        create(self)

    monkeypatch.setattr(lock._BucketLock, "_create", create_second)
    assert "process 7 on other trains in" in refusal(bucket)
    assert (bucket / others).read_text() == OTHER


def test_an_identity_that_is_half_written_names_another_process():
    whole = lock._identity()
    assert lock._name(whole) == f"process {os.getpid()} on {socket.gethostname()}"
    assert lock._name(whole[:9]) == lock._name("") == "another process"
