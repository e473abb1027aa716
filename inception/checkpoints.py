"""Saves and restores the states of a run: the only file that knows Orbax.

`WORKDIR/checkpoints/STEP/` is a whole TrainState. It is restored leaf by leaf, by name: so weights
can be read alone, whatever the optimizer was, and a state that has gained leaves since can still be
restored. Saves are asynchronous; leaving `Checkpoints` waits for the one in flight, also when an
exception passes through.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from inception import config as config_lib
from inception.errors import CheckpointError

FORMAT = 2  # of what this version writes; checkpoints without a number are format 1


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager.

    Args:
      workdir: an absolute path, or one in a bucket, see `workdir.resolve_workdir`.
      keep: how many of the newest are kept.

    Raises:
      CheckpointError: if the workdir cannot be written.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 3):
        self.directory = epath.Path(workdir) / "checkpoints"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"workdir {workdir} cannot be written: {error}") from error
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_handlers=ocp.PyTreeCheckpointHandler()
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

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """The shape of every leaf of a checkpoint by its name, "params/Logits/bias"."""
        stored = _by_name(self._manager.item_metadata(step).tree)
        return {name: leaf.shape for name, leaf in stored.items()}

    def save(self, step: int, state: Any) -> None:
        """Saves `state` as `step`, in the background; does nothing if that step is there.

        Raises:
          CheckpointError: if this save or, as it goes on in the background, the one before failed;
            leaving `Checkpoints` raises it too.
        """
        if step not in self._manager.all_steps():
            with self._naming_failures():
                args = ocp.args.PyTreeSave(state)
                self._manager.save(step, args=args, custom_metadata={"format": FORMAT}, force=True)

    @contextlib.contextmanager
    def _naming_failures(self) -> Iterator[None]:
        """Says what a failed save means; Orbax and what it stands on raise all kinds of errors."""
        try:
            yield
        except Exception as error:
            whole = self.steps()
            raise CheckpointError(
                f"a checkpoint cannot be saved in {self.directory}, maybe for want of room: "
                f"{_first_line(error)}. The same command continues from "
                f"{whole[-1] if whole else 'the start'}"
            ) from error

    def restore(
        self,
        like: Any,
        step: int | None = None,
        *,
        fresh: Callable[[], Any] | None = None,
        part: bool = False,
    ) -> tuple[int, Any]:
        """Restores the newest checkpoint, or that of `step`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with shardings, as the state should come back.
          step: which; None for the newest.
          fresh: makes a first state, whose values are taken for leaves that the checkpoint, of an
            older version, does not have; None refuses such a checkpoint.
          part: whether the checkpoint may hold more than `like`, which is then left unread.

        Returns:
          The step and the state.

        Raises:
          CheckpointError: if it is not there, cannot be read, was written by a newer version, or
            holds arrays of other names, shapes or types.
        """
        step = self.existing(step)
        try:
            stored = self._manager.item_metadata(step).tree
            self._check(step, _describe(stored), _describe(like), fresh is not None, part)
            return step, self._restore(step, stored, like, fresh)
        except CheckpointError:
            raise
        except Exception as error:  # all kinds, of files that are damaged or cannot be read
            others = [other for other in self.steps() if other != step]
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} cannot be read: {_first_line(error)}. "
                f"Without its folder, if you move it away, the others are used: {others or 'none'}"
            ) from error

    def existing(self, step: int | None = None) -> int:
        """The newest step, or `step` if it is there.

        Raises:
          CheckpointError: if it is not.
        """
        steps = self.steps()
        if not steps or step not in (None, *steps):
            wanted = "a checkpoint" if step is None else f"step {step}"
            raise CheckpointError(
                f"{self.directory} does not hold {wanted}; it has {steps or None}"
            )
        return steps[-1] if step is None else step

    def _restore(self, step: int, stored: Any, like: Any, fresh: Callable[[], Any] | None) -> Any:
        wanted = _by_name(like)
        request = jax.tree_util.tree_map_with_path(
            lambda path, _: wanted.get(_name(path), ocp.PLACEHOLDER), stored
        )
        # PLACEHOLDER leaves are not read; the sharding has to be said once more, leaf by leaf.
        how = ocp.args.PyTreeRestore(request, ocp.checkpoint_utils.construct_restore_args(request))
        found = _by_name(self._manager.restore(step, args=how))
        found = {name: leaf for name, leaf in found.items() if name in wanted}
        absent = _by_name(fresh()) if fresh and not wanted.keys() <= found.keys() else {}
        return jax.tree_util.tree_map_with_path(
            lambda path, _: found[_name(path)] if _name(path) in found else absent[_name(path)],
            like,
        )

    def _check(
        self,
        step: int,
        stored: dict[str, str],
        like: dict[str, str],
        may_lack: bool,
        may_have_more: bool,
    ) -> None:
        """Compares names, shapes and types, since Orbax restores float32 into bfloat16 silently."""
        checkpoint = self.directory / str(step)
        metadata = self._manager.metadata(step).custom_metadata or {}
        if metadata.get("format", 1) > FORMAT:
            raise CheckpointError(
                f"checkpoint {checkpoint} has format {metadata['format']}, and this version reads "
                f"up to {FORMAT}. Use the newer version that wrote it"
            )
        for name, (old, new) in config_lib.differences(stored, like).items():
            if (old is None and may_lack) or (new is None and may_have_more):
                continue
            raise CheckpointError(
                f"checkpoint {checkpoint} does not fit the config: {name} is "
                f"{old or 'absent'} in the checkpoint and {new or 'absent'} in the network"
            )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_name(tree: Any) -> dict[str, Any]:
    """Every leaf by its path."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _describe(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf by its path."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _by_name(tree).items()}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
