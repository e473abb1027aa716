"""One run at a time trains in a workdir; reading it needs no lock.

On a disk, WORKDIR/run.lock is locked with flock(2). The kernel lets go of it when the process
ends, whatever it dies of, so that nothing stale is ever in the way. On NFS Linux hands flock to
the server, which knows all hosts; where a file system has no locks, that is warned of.

In a bucket nothing can be locked. There run.lock is written again every `BEAT` seconds, and a
process that finds one watches it: if it changes, the other lives; if not, within `PATIENCE`
seconds, it is dead. Two that start in the same second both find none, and the later writer has it.

Of several processes of one run, process 0 holds the lock, and the others wait until it does.
"""

import contextlib
import fcntl
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

from etils import epath

from inception import processes
from inception.errors import CheckpointError
from inception.files import is_local
from inception.logbook import log

FILE = "run.lock"
BEAT, PATIENCE = 20.0, 60.0  # seconds
_rounds = itertools.count()


@contextlib.contextmanager
def only_run(workdir: epath.PathLike) -> Iterator[None]:
    """While it lasts, no other run trains in `workdir`, which is made if it is not there.

    Raises:
      CheckpointError: if another one does, naming its process; or if it cannot be written.
    """
    number, count = processes.place()
    key = f"inception/lock/{next(_rounds)}"
    if number:
        processes.ask(key)
        yield
        return
    file = epath.Path(workdir) / FILE
    with _locked(file) if is_local(file) else _beating(file):
        if count > 1:
            processes.tell(key, "held")
        yield


@contextlib.contextmanager
def _locked(file: epath.Path) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    except OSError as error:
        raise CheckpointError(f"workdir {file.parent} cannot be written: {error}") from error
    try:
        _lock(descriptor, file)
        with contextlib.suppress(OSError):  # the disk is full: held all the same, without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _who().encode(), 0)
        yield
    finally:
        os.close(descriptor)  # which unlocks; the file stays, for others may be opening it


def _lock(descriptor: int, file: epath.Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(file, os.pread(descriptor, 1000, 0).decode()) from None
    except OSError as error:
        log(f"warning: {file} cannot be locked ({error}); start only one run in this workdir")


@contextlib.contextmanager
def _beating(file: epath.Path) -> Iterator[None]:
    mine, done = _who(), threading.Event()
    try:
        _wait_for_the_dead(file)
        file.write_text(mine)
        if file.read_text() != mine:
            raise _refusal(file, file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be written: {error}") from error

    def beat() -> None:
        while not done.wait(BEAT):
            with contextlib.suppress(Exception):  # of the network; the next one may come through
                file.write_text(_who())

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        with contextlib.suppress(Exception):
            file.unlink()


def _wait_for_the_dead(file: epath.Path) -> None:
    if not file.exists():
        return
    before, end = file.read_text(), time.monotonic() + PATIENCE
    log(f"{_name(before)} has not left {file.parent} in order; waiting for a sign of life")
    while time.monotonic() < end:
        time.sleep(PATIENCE / 20)
        if not file.exists():
            return
        if (now := file.read_text()) != before:
            raise _refusal(file, now, before)


def _who() -> str:
    """Names the process that writes it, and when."""
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()})


def _name(*texts: str) -> str:
    """Names the process of the first text that is whole: one may be read while it is written."""
    for text in texts:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            who = json.loads(text)
            return f"process {who['pid']} on {who['host']}"
    return "another process"


def _refusal(file: epath.Path, *texts: str) -> CheckpointError:
    return CheckpointError(
        f"{_name(*texts)} trains in {file.parent}. Stop it first, or choose another --workdir"
    )
