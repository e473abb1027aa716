"""One run at a time trains in a workdir; reading it needs no lock.

On a disk, WORKDIR/run.lock is locked with flock(2), which the kernel releases when the process
ends, however it ends. On NFS, Linux forwards flock to the server, which knows all hosts; a file
system without locks causes a warning.

A bucket has no locks. There run.lock is created by a write that fails if the file exists, and is
written again every `HEARTBEAT_SECONDS`. Who finds a file watches it: if it changes within
`STALE_SECONDS`, its run is alive; if not, the file is overwritten, and the last of those who do so
has the workdir. A run that could not reach the bucket for a while reads the file before it writes
anything else, and stops if the file is another run's.

With several processes, process 0 holds the lock, and the others wait until it does.
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
HEARTBEAT_SECONDS, STALE_SECONDS = 20.0, 60.0
SETTLE_SECONDS = 5.0  # after overwriting, for others that may be doing the same
_rounds = itertools.count()


@contextlib.contextmanager
def run_lock(workdir: epath.PathLike) -> Iterator[Callable[[], None]]:
    """Context in which no other run trains in `workdir`, which is created if necessary.

    Yields:
      A function to call before anything is written. It raises CheckpointError if another run has
      taken the workdir, which can happen if a bucket could not be reached for a while.

    Raises:
      CheckpointError: If another run has the lock, naming its process; or if the workdir cannot be
        written.
    """
    index, count = processes.process_index_and_count()
    key = f"inception/lock/{next(_rounds)}"
    if index:
        processes.wait_for(key)
        yield lambda: None
        return
    file = epath.Path(workdir) / FILE
    with _flock(file) if is_local(file) else _heartbeat(file) as check:
        if count > 1:
            processes.publish(key, "held")
        yield check


@contextlib.contextmanager
def _flock(file: epath.Path) -> Iterator[Callable[[], None]]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    except OSError as error:
        raise CheckpointError(f"workdir {file.parent} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode()
        os.close(descriptor)
        raise _refusal(file.parent, holder) from None
    except OSError as error:
        log(f"warning: {file} cannot be locked ({error}); start only one run in this workdir")
    try:
        with contextlib.suppress(OSError):  # the disk is full: the lock is held without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _identity().encode(), 0)
        yield lambda: None
    finally:
        os.close(descriptor)  # unlocks; the file stays, because others may be opening it


@contextlib.contextmanager
def _heartbeat(file: epath.Path) -> Iterator[Callable[[], None]]:
    lock, done = _BucketLock(file), threading.Event()
    try:
        lock.acquire()
    except CheckpointError:
        raise
    except Exception as error:  # of the bucket's package, of the network
        raise CheckpointError(f"{file} cannot be written: {error}") from error

    def renew() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            lock.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lock.check
    finally:
        done.set()
        thread.join()
        lock.release()


class _BucketLock:
    """The file run.lock in a bucket, which names the run that has written it last."""

    def __init__(self, file: epath.Path):
        self._workdir, self._id = file.parent, uuid.uuid4().hex
        self._files, self._path = fsspec.core.url_to_fs(os.fspath(file))
        self._renewing = threading.Lock()
        self._renewed_at = 0.0
        self._other = ""  # content of the file when it was found to be another run's

    def acquire(self) -> None:
        """Writes the file, if there is none or its run is dead.

        Raises:
          CheckpointError: If another run has it.
        """
        if (holder := self._read()) and self._is_stale(holder):
            self._overwrite()
        else:
            self._create()
        if not self._is_mine(now := self._read()):
            raise _refusal(self._workdir, now or holder)
        self._renewed_at = time.time()

    def renew(self) -> None:
        """Writes the file again if it is still this run's; skipped if the bucket is not reached."""
        with self._renewing, contextlib.suppress(Exception):  # of the network
            if not self._is_mine(now := self._read()):
                self._other = now or "deleted"
            elif not self._other:
                self._write()
                self._renewed_at = time.time()

    def check(self) -> None:
        """Makes sure that the lock is held, reading the file only if a heartbeat is late.

        Raises:
          CheckpointError: If another run has it.
        """
        if time.time() - self._renewed_at > 2 * HEARTBEAT_SECONDS:  # less than STALE_SECONDS
            self.renew()
        if self._other:
            raise CheckpointError(
                f"{_name(self._other)} took over {self._workdir} while this run could not reach it."
                " This run stops, and has saved nothing since"
            )

    def release(self) -> None:
        """Deletes the file if it is this run's."""
        with contextlib.suppress(Exception):
            if self._is_mine(self._read()):
                self._files.rm_file(self._path)

    def _is_stale(self, holder: str) -> bool:
        """Watches the file of another run; False if that run releases it.

        Raises:
          CheckpointError: If the file changes, so that the other run is alive.
        """
        end = time.monotonic() + STALE_SECONDS
        log(
            f"{_name(holder)} did not release its lock on {self._workdir}; waiting up to "
            f"{STALE_SECONDS:g} s to see whether it is still running"
        )
        while time.monotonic() < end:
            time.sleep(STALE_SECONDS / 20)
            if not (now := self._read()):
                return False
            if now != holder:
                raise _refusal(self._workdir, now)
        return True

    def _read(self) -> str:
        """The content of the file; "" if there is none."""
        try:
            return self._files.cat_file(self._path).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _write(self, **options: str) -> None:
        self._files.pipe_file(self._path, _identity(self._id).encode(), **options)

    def _overwrite(self) -> None:
        self._write()
        time.sleep(SETTLE_SECONDS)

    def _create(self) -> None:
        """Writes the file if it does not exist."""
        try:
            self._write(mode="create")
        except FileExistsError:  # another run was faster
            return
        except (NotImplementedError, TypeError, ValueError):  # of a package without this mode
            self._overwrite()

    def _is_mine(self, content: str) -> bool:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return json.loads(content)["id"] == self._id
        return False


def _identity(id: str = "") -> str:
    """The content of run.lock: this process, the time, and `id`, which tells its runs apart."""
    identity = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "id": id}
    return json.dumps(identity)


def _name(content: str) -> str:
    """Names the process in a run.lock, which on a disk may be read while it is written."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        identity = json.loads(content)
        return f"process {identity['pid']} on {identity['host']}"
    return "another process"


def _refusal(workdir: epath.Path, content: str) -> CheckpointError:
    return CheckpointError(
        f"{_name(content)} trains in {workdir}. Stop it first, or choose another --workdir"
    )
