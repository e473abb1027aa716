"""One run at a time trains in a workdir; reading it needs no lock.

On a disk, WORKDIR/run.lock is locked with flock(2). The kernel lets go of it when the process
ends, whatever it dies of, so that nothing stale is ever in the way. On NFS Linux hands flock to
the server, which knows all hosts; where a file system has no locks, that is warned of.

In a bucket nothing can be locked. There run.lock is created by a write that fails where the file
exists, and is written again every `BEAT` seconds, a beat. A process that finds one watches it: if
it changes, the other lives; if not, within `STALE_SECONDS` seconds, it is dead, and the file is
overwritten. Whoever's name is in the file after that has the workdir. A run that could not reach
the bucket for so long reads the file before it writes anything, and stops if it is another's.

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
import uuid
from collections.abc import Callable, Iterator

import fsspec
from etils import epath

from inception.distributed import processes
from inception.errors import CheckpointError
from inception.workdir.files import is_local
from inception.workdir.logbook import log

FILE = "run.lock"
BEAT, STALE_SECONDS, SETTLE = 20.0, 60.0, 5.0  # seconds
_rounds = itertools.count()


@contextlib.contextmanager
def run_lock(workdir: epath.PathLike) -> Iterator[Callable[[], None]]:
    """While it lasts, no other run trains in `workdir`, which is made if it is not there.

    Yields:
      A function to call before anything is written: it raises CheckpointError if another run has
      the workdir by now, which can happen in a bucket that could not be reached for a time.

    Raises:
      CheckpointError: if another one does, naming its process; or if it cannot be written.
    """
    number, count = processes.process_index_and_count()
    key = f"inception/lock/{next(_rounds)}"
    if number:
        processes.wait_for(key)
        yield lambda: None
        return
    file = epath.Path(workdir) / FILE
    with _locked(file) if is_local(file) else _heartbeat(file) as check:
        if count > 1:
            processes.publish(key, "held")
        yield check


@contextlib.contextmanager
def _locked(file: epath.Path) -> Iterator[Callable[[], None]]:
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
        yield lambda: None
    finally:
        os.close(descriptor)  # which unlocks; the file stays, for others may be opening it


def _lock(descriptor: int, file: epath.Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(file.parent, os.pread(descriptor, 1000, 0).decode()) from None
    except OSError as error:
        log(f"warning: {file} cannot be locked ({error}); start only one run in this workdir")


@contextlib.contextmanager
def _heartbeat(file: epath.Path) -> Iterator[Callable[[], None]]:
    lock, done = _BucketLock(file), threading.Event()
    try:
        lock.take()
    except CheckpointError:
        raise
    except Exception as error:  # of the bucket's package, of the network
        raise CheckpointError(f"{file} cannot be written: {error}") from error

    def beat() -> None:
        while not done.wait(BEAT):
            lock.beat()

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield lock.check
    finally:
        done.set()
        heart.join()
        lock.release()


class _BucketLock:
    """The file run.lock in a bucket, which names whoever has written it last."""

    def __init__(self, file: epath.Path):
        self._workdir, self._id = file.parent, uuid.uuid4().hex
        self._files, self._path = fsspec.core.url_to_fs(os.fspath(file))
        self._one_at_a_time = threading.Lock()
        self._read_at = 0.0  # when the file was this run's
        self._other = ""  # who has the workdir instead

    def take(self) -> None:
        """Writes the file, if nobody has it or who had it is dead.

        Raises:
          CheckpointError: if another one has it.
        """
        if (there := self._read()) and self._is_dead(there):
            self._overwrite()
        else:
            self._create()
        if not self._is_mine(now := self._read()):
            raise _refusal(self._workdir, now, there)
        self._read_at = time.time()

    def beat(self) -> None:
        """Writes the file again if it is still this run's; another one may come through later."""
        with self._one_at_a_time, contextlib.suppress(Exception):  # of the network
            if not self._is_mine(now := self._read()):
                self._other = now or "one that has ended"
            elif not self._other:
                self._write()
                self._read_at = time.time()

    def check(self) -> None:
        """Looks whether it is still this run's, unless it was so recently that it has to be.

        Raises:
          CheckpointError: if it is another's.
        """
        if time.time() - self._read_at > 2 * BEAT:  # a beat is late: nobody waits less than that
            self.beat()
        if self._other:
            raise CheckpointError(
                f"{_name(self._other)} took over {self._workdir} while this run could not reach it."
                " This run stops, and has saved nothing since"
            )

    def release(self) -> None:
        """Removes the file if it is this run's."""
        with contextlib.suppress(Exception):
            if self._is_mine(self._read()):
                self._files.rm_file(self._path)

    def _is_dead(self, before: str) -> bool:
        """Watches a lock that is there: True if it stays as it was, False if it is released."""
        end = time.monotonic() + STALE_SECONDS
        log(
            f"{_name(before)} did not release its lock on {self._workdir}; waiting up to "
            f"{STALE_SECONDS:g} s to see whether it is still running"
        )
        while time.monotonic() < end:
            time.sleep(STALE_SECONDS / 20)
            if not (now := self._read()):
                return False
            if now != before:
                raise _refusal(self._workdir, now, before)
        return True

    def _read(self) -> str:
        """The file's text, "" if there is none."""
        try:
            return self._files.cat_file(self._path).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _write(self) -> None:
        self._files.pipe_file(self._path, _who(self._id).encode())

    def _overwrite(self) -> None:
        """Writes the file, and waits for others that may be doing the same: the last one has it."""
        self._write()
        time.sleep(SETTLE)

    def _create(self) -> None:
        """Writes the file if it does not exist."""
        try:
            self._files.pipe_file(self._path, _who(self._id).encode(), mode="create")
        except FileExistsError:  # somebody was faster
            return
        except (NotImplementedError, TypeError, ValueError):  # of a package that cannot do that
            self._overwrite()

    def _is_mine(self, text: str) -> bool:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return json.loads(text)["id"] == self._id
        return False


def _who(id: str = "") -> str:
    """Names the process that writes it, and when; `id` tells its runs apart."""
    who = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "id": id}
    return json.dumps(who)


def _name(*texts: str) -> str:
    """Names the process of the first text that is whole: one may be read while it is written."""
    for text in texts:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            who = json.loads(text)
            return f"process {who['pid']} on {who['host']}"
    return "another process"


def _refusal(workdir: epath.Path, *texts: str) -> CheckpointError:
    return CheckpointError(
        f"{_name(*texts)} trains in {workdir}. Stop it first, or choose another --workdir"
    )
