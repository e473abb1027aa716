"""Saves the states of a run, and lets the run continue when a save fails.

Saves are asynchronous; leaving the writer waits for the one in progress, also when an exception
passes through. A failed save, on a full or missing disk, causes a warning: all earlier checkpoints
stay, and the next save is another attempt. Only if the last save fails, the run fails.

The first checkpoint that a process saves is read back and compared with its checksums, and no older
one is deleted before: a disk or bucket that cannot return what it has accepted loses nothing that
was saved earlier.
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import jax
from etils import epath

from inception.data.paths import is_local
from inception.distributed import processes
from inception.distributed.preemption import Interrupted
from inception.distributed.sharding import is_main_process
from inception.errors import CheckpointError
from inception.workdir import digests
from inception.workdir.checkpoints import Checkpoints, first_error
from inception.workdir.digests import DamagedCheckpoint
from inception.workdir.logbook import log
from inception.workdir.retention import RetentionPolicy, best_step, quarantine


class CheckpointWriter(Checkpoints):
    """The checkpoints of a run, to read and to write. Use as a context manager.

    Only the processes of one run may use it at a time; see lock.py.

    Args:
      workdir: See `Checkpoints`.
      policy: Which checkpoints are kept when a newer one is complete.

    Raises:
      CheckpointError: If the workdir cannot be written; on exit, if the last save has failed.
    """

    def __init__(self, workdir: epath.PathLike, policy: RetentionPolicy | None = None):
        self.policy = policy or RetentionPolicy()
        self._tried: int | None = None
        self._is_verified = False  # whether a checkpoint of this process was read back
        self._failure: CheckpointError | None = None
        try:
            (epath.Path(workdir) / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"workdir {workdir} cannot be written: {error}") from error
        super().__init__(workdir)

    def _open(self, clean: bool = True) -> Any:
        return super()._open(clean)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Interrupted):
            self._wait()
        else:  # other processes may not have this error, so there is no waiting for them
            self._settle()
        self._manager.close()
        if self._failure and (error is None or isinstance(error, KeyboardInterrupt)):
            raise self._failure

    def save(self, step: int, state: Any) -> None:
        """Saves `state` as `step`, in the background; has no effect if that step was saved."""
        self._wait()
        if step in self.steps():
            return
        self._tried, self._failure = step, None
        try:
            if is_local(self.directory) and not self.directory.exists():
                log(f"warning: {self.directory} was deleted; recreating it")
                self.directory.mkdir(parents=True, exist_ok=True)
                self._manager.reload()
            _check_room(self.directory, state)
            self._start_save(step, state)
        except Exception as error:
            self._note_failure(error)

    def wait(self) -> None:
        """Waits for the save in progress.

        Raises:
          CheckpointError: If the last save has failed.
        """
        self._wait()
        if self._failure:
            raise self._failure

    def _wait(self) -> None:
        """Waits for the save in progress, and deletes checkpoints that it makes superfluous."""
        self._settle()
        if not self._is_verified and self._tried in self.steps():
            self._read_back(self._tried)
        if self._is_verified:
            self._remove_surplus()

    def _settle(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._note_failure(error)

    def _read_back(self, step: int | None) -> None:
        """Verifies the checkpoint that was just saved; a damaged one is moved away."""
        try:
            self.verify(self.resolve_step(step))
            self._is_verified = True
        except CheckpointError as error:
            if isinstance(error, DamagedCheckpoint):
                self._quarantine([self.resolve_step(step)])
            self._fail(f"step {step} was saved but cannot be read back: {error}", error)

    def _remove_surplus(self) -> None:
        steps = self.steps()
        best = best_step(self.directory.parent, steps) if self.policy.best else None
        mine = json.dumps(self.policy.surplus(steps, best))
        problem, surplus = "", json.loads(processes.gather_and_reduce(mine, lambda texts: texts[0]))
        if not surplus:
            return
        try:
            for step in surplus if is_main_process() else ():
                (self.directory / str(step)).rmtree(missing_ok=True)
        except Exception as error:  # a bucket's package raises all kinds
            problem = digests.first_line(error)
        if problem := first_error(problem):
            log(f"warning: older checkpoints in {self.directory} cannot be deleted: {problem}")
        self._manager.reload()

    def _note_failure(self, error: Exception) -> None:
        """Reopens the manager after a failed save; Orbax and its libraries raise many errors."""
        with contextlib.suppress(Exception):
            self._manager.close()
        self._manager = self._open()  # lists what was saved, and deletes what is incomplete
        self._is_verified = False
        if self._tried not in self.steps():
            what = digests.first_line(error)
            self._fail(f"step {self._tried} cannot be saved in {self.directory}: {what}", error)

    def _fail(self, problem: str, error: Exception) -> None:
        """Remembers that the last save failed, which is raised unless a later one succeeds."""
        steps = self.steps()
        self._failure = CheckpointError(
            f"{problem}. The same command continues from {steps[-1] if steps else 'the start'}"
        )
        self._failure.__cause__ = error
        if jax.process_count() > 1:  # the others may have saved it, or be waiting for this one
            raise self._failure
        log(f"warning: {self._failure}. This run continues; its next save is another attempt")

    def _warn_damaged(self, damaged: Mapping[int, DamagedCheckpoint], used: int) -> None:
        """Also moves damaged checkpoints away, because the run will save these steps again."""
        super()._warn_damaged(damaged, used)
        if damaged:
            self._quarantine(damaged)

    def _quarantine(self, damaged: Iterable[int]) -> None:
        for step in damaged if is_main_process() else ():
            log(f"the damaged checkpoint is kept as {quarantine(self.directory / str(step))}")
        first_error("")  # process 0 has moved them
        self._manager.reload()


def _check_room(directory: epath.Path, state: Any) -> None:
    """Checks that a local disk has room for a state, before any of it is written.

    Raises:
      OSError: Naming the sizes that are needed and free.
    """
    if not is_local(directory):
        return
    leaves = jax.tree.leaves(state)
    needed = sum(leaf.nbytes for leaf in leaves) + 1000 * len(leaves)  # and metadata
    if needed > (free := shutil.disk_usage(directory).free):
        left, size = f"{free / 1e6:,.1f} MB are free", f"{needed / 1e6:,.1f} MB are needed"
        raise OSError(errno.ENOSPC, f"{left} and {size}")
