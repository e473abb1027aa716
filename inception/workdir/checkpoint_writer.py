"""Saves the states of the run that this process trains, and goes on when a save fails.

Saves are asynchronous; leaving the writer waits for the one in flight, also when an exception
passes through. A save that fails, for lack of room or because the disk is gone, is reported and
does not end the run: all earlier checkpoints stay, and the next save is another try. Only the last
one counts.

The first checkpoint that a process has saved is read back and compared with its digests, and no
older one is removed before: a path, a disk or a bucket that takes everything and gives nothing back
costs nothing that was there.
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

from inception.distributed import processes
from inception.distributed.preemption import Interrupted
from inception.distributed.sharding import is_main_process
from inception.errors import CheckpointError
from inception.workdir import digests
from inception.workdir.checkpoints import Checkpoints, first_error
from inception.workdir.digests import DamagedCheckpoint
from inception.workdir.files import is_local
from inception.workdir.logbook import log
from inception.workdir.retention import RetentionPolicy, best_step, quarantine


class CheckpointWriter(Checkpoints):
    """The checkpoints of a run, to go on from and to add to. Use as a context manager.

    Only one process, or the processes of one run, may have it; see lock.py.

    Args:
      workdir: see `Checkpoints`.
      keep: what is not removed when a newer checkpoint is complete.

    Raises:
      CheckpointError: if the workdir cannot be written; when left, if the last save has failed.
    """

    def __init__(self, workdir: epath.PathLike, policy: RetentionPolicy | None = None):
        self.policy = policy or RetentionPolicy()
        self._tried: int | None = None
        self._is_proven = False  # whether a checkpoint of this process could be read back
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
        else:  # of which other processes may not know
            self._settle()
        self._manager.close()
        if self._failure and (error is None or isinstance(error, KeyboardInterrupt)):
            raise self._failure

    def save(self, step: int, state: Any) -> None:
        """Saves `state` as `step`, in the background; does nothing if that step is there."""
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
        """Waits for the save in flight.

        Raises:
          CheckpointError: if the last save has failed.
        """
        self._wait()
        if self._failure:
            raise self._failure

    def _wait(self) -> None:
        """Waits for the save in flight, and removes what need not be kept besides it."""
        self._settle()
        if not self._is_proven and self._tried in self.steps():
            self._prove(self._tried)
        if self._is_proven:
            self._remove_surplus()

    def _settle(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._note_failure(error)

    def _prove(self, step: int | None) -> None:
        """Reads back the checkpoint that was just saved; a damaged one is set aside."""
        try:
            self.verify(self.existing(step))
            self._is_proven = True
        except CheckpointError as error:
            if isinstance(error, DamagedCheckpoint):
                self._set_aside([self.existing(step)])
            self._fail(f"step {step} was saved and cannot be read back: {error}", error)

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
            log(f"warning: older checkpoints in {self.directory} cannot be removed: {problem}")
        self._manager.reload()

    def _note_failure(self, error: Exception) -> None:
        """Says what a failed save means; Orbax and what it stands on raise all kinds of errors."""
        with contextlib.suppress(Exception):
            self._manager.close()
        self._manager = self._open()  # which looks at what is there, and removes what is half there
        self._is_proven = False
        if self._tried not in self.steps():
            what = digests.first_line(error)
            self._fail(f"step {self._tried} cannot be saved in {self.directory}: {what}", error)

    def _fail(self, problem: str, error: Exception) -> None:
        """Remembers that the newest state is not safe; that ends the run if nothing follows."""
        steps = self.steps()
        self._failure = CheckpointError(
            f"{problem}. The same command continues from {steps[-1] if steps else 'the start'}"
        )
        self._failure.__cause__ = error
        if jax.process_count() > 1:  # the others may have saved it, or wait for this one
            raise self._failure
        log(f"warning: {self._failure}. This run goes on; its next save is another try")

    def _warn_damaged(self, damaged: Mapping[int, DamagedCheckpoint], used: int) -> None:
        """Sets damaged checkpoints aside, for the run will save these steps again."""
        super()._warn_damaged(damaged, used)
        if damaged:
            self._set_aside(damaged)

    def _set_aside(self, damaged: Iterable[int]) -> None:
        for step in damaged if is_main_process() else ():
            log(f"the damaged one is kept as {quarantine(self.directory / str(step))}")
        first_error("")  # process 0 has moved them
        self._manager.reload()


def _check_room(directory: epath.Path, state: Any) -> None:
    """Refuses what a local disk has no room for, before it is full.

    Raises:
      OSError: naming what is needed and what there is.
    """
    if not is_local(directory):
        return
    leaves = jax.tree.leaves(state)
    needed = sum(leaf.nbytes for leaf in leaves) + 1000 * len(leaves)  # and what describes them
    if needed > (free := shutil.disk_usage(directory).free):
        left, size = f"{free / 1e6:,.1f} MB are free", f"{needed / 1e6:,.1f} MB are needed"
        raise OSError(errno.ENOSPC, f"{left} and {size}")
