"""Saves and restores the states of a run: the only file that knows Orbax.

`WORKDIR/checkpoints/STEP/` is a whole TrainState. Saves are asynchronous; leaving `Checkpoints`
waits for the one in flight, also when an exception passes through.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from inception import config as config_lib
from inception.errors import CheckpointError


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager.

    Raises:
      CheckpointError: if the workdir cannot be written.
    """

    def __init__(self, workdir: str | Path, keep: int = 3):
        self.directory = Path(workdir).absolute() / "checkpoints"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"workdir {workdir} cannot be written: {error}") from error
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        try:
            with self._naming_failures():
                self._manager.wait_until_finished()
        finally:
            self._manager.close()

    def steps(self) -> list[int]:
        """The steps that are there, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Saves `state` as `step`, in the background; does nothing if that step is there.

        Raises:
          CheckpointError: if this save or, as it goes on in the background, the one before failed;
            leaving `Checkpoints` raises it too.
        """
        if step not in self._manager.all_steps():
            with self._naming_failures():
                self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    @contextlib.contextmanager
    def _naming_failures(self) -> Iterator[None]:
        """Says what a failed save means; Orbax and what it stands on raise all kinds of errors."""
        try:
            yield
        except Exception as error:
            whole = self.steps()
            raise CheckpointError(
                f"a checkpoint cannot be saved in {self.directory}: {_first_line(error)}. Is the "
                f"disk full? The last one that is whole is {whole[-1] if whole else 'none'}; the "
                "same command continues from it"
            ) from error

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any]:
        """Restores the newest checkpoint, or that of `step`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with shardings, as the state should come back.
          step: which; None for the newest.

        Returns:
          The step and the state.

        Raises:
          CheckpointError: if it is not there, cannot be read, or holds arrays of other names,
            shapes or types.
        """
        steps = self.steps()
        if not steps or step not in (None, *steps):
            wanted = "a checkpoint" if step is None else f"step {step}"
            raise CheckpointError(
                f"{self.directory} does not hold {wanted}; it has {steps or None}"
            )
        step = steps[-1] if step is None else step
        try:
            self._check(like, step)
            return step, self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except CheckpointError:
            raise
        except Exception as error:  # all kinds, of files that are damaged or cannot be read
            others = [other for other in steps if other != step]
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} cannot be read: {_first_line(error)}. "
                f"Without its folder, if you move it away, the others are used: {others or 'none'}"
            ) from error

    def _check(self, like: Any, step: int) -> None:
        """Compares names, shapes and types, since Orbax restores float32 into bfloat16 silently."""
        stored = _describe(self._manager.item_metadata(step).tree)
        for name, (old, new) in config_lib.differences(stored, _describe(like)).items():
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} does not fit the config: {name} is "
                f"{old or 'absent'} in the checkpoint and {new or 'absent'} in the network"
            )


def _describe(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
