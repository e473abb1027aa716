"""One run at a time trains in a workdir; reading it needs no lock.

On a disk, WORKDIR/run.lock is locked with flock(2), which the kernel releases when the process
ends, however it ends. On NFS, Linux forwards flock to the server, which knows all hosts; a file
system without locks causes a warning.

A bucket has no locks, but it can create a file only if the file does not exist. There the lock is
a sequence of files, run.lock, run.lock.1, run.lock.2 ..., and the run that created the last one
has the workdir. It writes its file again every `HEARTBEAT_SECONDS`, and marks it as released when
it ends. A run that starts watches the last file: if it changes within `STALE_SECONDS`, its run is
alive; if not, or if it is released, the next file is created, which only one run can do. A run
never writes another's file. One that could not reach the bucket for a while looks for a later file
before it writes anything else, and stops if there is one.

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
from typing import Any

import fsspec
from etils import epath

from inception.data.paths import is_local
from inception.distributed import processes
from inception.errors import CheckpointError
from inception.workdir.logbook import log

FILE = "run.lock"
HEARTBEAT_SECONDS, STALE_SECONDS = 20.0, 60.0
OUTAGE_SECONDS = 600.0  # a run waits as long for a bucket that it cannot reach
SETTLE_SECONDS = 5.0  # where a file cannot be created exclusively, for others that write it too
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
    """A run's own file in the sequence of lock files of a workdir in a bucket."""

    def __init__(self, file: epath.Path):
        self._workdir, self._id = file.parent, uuid.uuid4().hex
        self._files, self._first = fsspec.core.url_to_fs(os.fspath(file))
        self._number = -1  # of this run's file
        self._renewing = threading.Lock()
        self._renewed_at = 0.0
        self._other = ""  # content of a later file

    def acquire(self) -> None:
        """Creates the next file, if there is none or the last one's run has ended.

        Raises:
          CheckpointError: If another run is alive, or creates the file first.
        """
        number, holder = self._last()
        if number >= 0 and not _is_released(holder):
            self._wait_until_stale(number, holder)
        self._number = number + 1
        self._create()
        last, now = self._last()
        if last != self._number or not self._is_mine(now):
            raise _refusal(self._workdir, now or holder)
        self._renewed_at = time.time()
        with contextlib.suppress(Exception):  # earlier files have no effect
            for number in self._numbers()[:-1]:
                self._files.rm_file(self._path(number))

    def renew(self) -> bool:
        """Writes this run's file again unless there is a later one; False if that fails."""
        with self._renewing, contextlib.suppress(Exception):  # of the network
            number, now = self._last()
            if number > self._number or not self._is_mine(now):
                self._other = now or "deleted"
            else:
                self._write()
                self._renewed_at = time.time()
            return True
        return False

    def check(self) -> None:
        """Makes sure that the lock is held, looking only if a heartbeat is late.

        Raises:
          CheckpointError: If another run has it, or if that cannot be found out.
        """
        end, announced = time.monotonic() + OUTAGE_SECONDS, False
        while not self._other and (age := time.time() - self._renewed_at) > 2 * HEARTBEAT_SECONDS:
            if self.renew() or age < STALE_SECONDS:  # no other run has taken over so soon
                break
            if time.monotonic() > end:
                raise CheckpointError(
                    f"{self._workdir} could not be reached for {age:.0f} s. Start again to resume "
                    "from the last checkpoint"
                )
            if not announced:
                log(f"waiting for {self._workdir}, which was last reached {age:.0f} s ago")
            announced = True
            time.sleep(HEARTBEAT_SECONDS / 20)
        if self._other:
            raise CheckpointError(
                f"{_name(self._other)} took over {self._workdir} while this run could not reach it."
                " This run stops, and has saved nothing since"
            )

    def release(self) -> None:
        """Marks this run's file as released, unless there is a later one."""
        with contextlib.suppress(Exception):
            if self._is_mine(self._last()[1]):
                self._write(released=True)

    def _wait_until_stale(self, number: int, holder: str) -> None:
        """Watches the last file, which is another run's, until it is stale or released.

        Raises:
          CheckpointError: If the file changes or is followed by another: that run is alive.
        """
        end = time.monotonic() + STALE_SECONDS
        log(
            f"{_name(holder)} did not release its lock on {self._workdir}; waiting up to "
            f"{STALE_SECONDS:g} s to see whether it is still running"
        )
        while time.monotonic() < end:
            time.sleep(STALE_SECONDS / 20)
            last, now = self._last()
            if last < number or (last == number and _is_released(now)):
                return
            if (last, now) != (number, holder):
                raise _refusal(self._workdir, now)

    def _numbers(self) -> list[int]:
        """The numbers of the files that exist, in increasing order; 0 is run.lock."""
        folder, _, first = self._first.rpartition("/")
        self._files.invalidate_cache()
        try:
            names = [path.rpartition("/")[2] for path in self._files.ls(folder, detail=False)]
        except FileNotFoundError:
            return []
        others = (name.removeprefix(f"{first}.") for name in names if name != first)
        return sorted(
            [0] * (first in names) + [int(other) for other in others if other.isdecimal()]
        )

    def _last(self) -> tuple[int, str]:
        """The number and the content of the last file; -1 and "" if there is none."""
        number = max(self._numbers(), default=-1)
        return number, self._read(number) if number >= 0 else ""

    def _path(self, number: int) -> str:
        return f"{self._first}.{number}" if number else self._first

    def _read(self, number: int) -> str:
        try:
            return self._files.cat_file(self._path(number)).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _write(self, released: bool = False, **options: str) -> None:
        content = _identity(self._id, released).encode()
        self._files.pipe_file(self._path(self._number), content, **options)

    def _create(self) -> None:
        """Writes this run's file if it does not exist."""
        try:
            self._write(mode="create")
        except FileExistsError:  # another run was faster
            return
        except (NotImplementedError, TypeError, ValueError):  # of a package without this mode
            self._write()
            time.sleep(SETTLE_SECONDS)

    def _is_mine(self, content: str) -> bool:
        return _parse(content).get("id") == self._id


def _identity(id: str = "", released: bool = False) -> str:
    """The content of run.lock: this process, the time, and `id`, which tells its runs apart."""
    identity = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "id": id}
    return json.dumps(identity | ({"released": True} if released else {}))


def _parse(content: str) -> dict[str, Any]:
    """The fields of a run.lock; none of one that is read while it is written, as on a disk."""
    with contextlib.suppress(ValueError):
        fields = json.loads(content)
        return fields if isinstance(fields, dict) else {}
    return {}


def _is_released(content: str) -> bool:
    return bool(_parse(content).get("released"))


def _name(content: str) -> str:
    fields = _parse(content)
    if {"pid", "host"} <= fields.keys():
        return f"process {fields['pid']} on {fields['host']}"
    return "another process"


def _refusal(workdir: epath.Path, content: str) -> CheckpointError:
    return CheckpointError(
        f"{_name(content)} trains in {workdir}. Stop it first, or choose another --workdir"
    )
