"""Saves and restores the states of a run: the only file that knows Orbax.

`WORKDIR/checkpoints/STEP/` is a whole TrainState with the digests of its leaves (digests.py). It is
restored leaf by leaf, by name: so weights can be read alone, whatever the optimizer was, and a
state that has gained leaves since can still be restored.

`Checkpoints` reads, also while the run goes on in another process, and changes nothing; who trains
has a `CheckpointWriter` (checkpoint_writer.py).
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from inception import config as settings
from inception.distributed import processes
from inception.distributed.sharding import is_main_process
from inception.errors import CheckpointError
from inception.workdir import digests
from inception.workdir.digests import DamagedCheckpoint
from inception.workdir.files import LiteralPath
from inception.workdir.logbook import log

FORMAT = 3  # of what this version writes; 2, and 1 without a number, had no digests

# What Orbax raises later it prints before, and asyncio and TensorStore what follows from it, once
# for every array.
_print_unraisable = sys.unraisablehook
logging.getLogger("absl").addFilter(
    lambda record: not (record.exc_info and "orbax" in record.pathname)
)
logging.getLogger("asyncio").addFilter(
    lambda record: "exception was never retrieved" not in record.getMessage()
)
sys.unraisablehook = lambda unraisable: (
    "Event loop is closed" in str(unraisable.exc_value) or _print_unraisable(unraisable)
)


class Checkpoints:
    """The checkpoints of one workdir, to read. Use as a context manager.

    Args:
      workdir: an absolute path, or one in a bucket, see `workdir.resolve_workdir`.

    Attributes:
      directory: WORKDIR/checkpoints.
    """

    def __init__(self, workdir: epath.PathLike):
        self.directory = epath.Path(workdir) / "checkpoints"
        self._manager = self._open()

    def _open(self, clean: bool = False) -> ocp.CheckpointManager:
        """Orbax's manager, which removes no checkpoint; `clean` removes saves cut off midway."""
        options = ocp.CheckpointManagerOptions(
            create=False,
            # Where a folder cannot be made, Orbax's threads would wait for it for minutes.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=clean,
            lightweight_initialize=True,  # damaged metadata of one must not hide the others
        )
        handlers = {"default": ocp.PyTreeCheckpointHandler(), "digests": _DigestsHandler()}
        directory = LiteralPath(self.directory)  # Orbax looks for files of a save by patterns
        return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)

    def _start_save(self, step: int, state: Any) -> None:
        """Copies a state, and writes it in the background."""
        parts = {"default": ocp.args.PyTreeSave(state), "digests": _DigestsSave(state)}
        args, metadata = ocp.args.Composite(**parts), {"format": FORMAT}
        self._manager.save(step, args=args, custom_metadata=metadata, force=True)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps that are there, in order."""
        return sorted(self._manager.all_steps())

    def restore(
        self,
        like: Any,
        step: int | None = None,
        *,
        fresh: Callable[[], Any] | None = None,
        part: bool = False,
    ) -> tuple[int, Any]:
        """Restores the newest checkpoint that is not damaged, or that of `step`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with shardings, as the state should come back; or
            a function that makes it from the shapes of the leaves by name, "params/Logits/bias".
          step: which; None for the newest. Damaged ones are then passed over with a message.
          fresh: makes a first state, whose values are taken for leaves that the checkpoint, of an
            older version, does not have; None refuses such a checkpoint.
          part: whether the checkpoint may hold more than `like`, which is then left unread.

        Returns:
          The step and the state.

        Raises:
          DamagedCheckpoint: if that of `step`, or every one, does not hold what was saved.
          CheckpointError: if it is not there, cannot be read, was written by a newer version, or
            holds arrays of other names, shapes or types.
        """
        newest = self.existing(step)
        damaged: dict[int, DamagedCheckpoint] = {}
        for candidate in reversed(self.steps()) if step is None else [newest]:
            try:
                state = self._read(candidate, like, fresh, part)
            except DamagedCheckpoint as error:
                damaged[candidate] = error
            else:
                self._warn_damaged(damaged, candidate)
                return candidate, state
        others = [other for other in self.steps() if other not in damaged]
        raise DamagedCheckpoint(
            f"{damaged[newest]}. "
            + (f"There are {others} besides" if others else "No other one is whole")
        )

    def verify(self, step: int) -> None:
        """Reads all of a checkpoint into the host's memory and compares it with its digests.

        Raises:
          DamagedCheckpoint: if it does not hold what was saved.
          CheckpointError: if it cannot be read.
        """
        with self._translate_errors(step):
            expected = self._digests(step)
            stored = self._manager.item_metadata(step)["default"].tree
            digests.verify_kinds(digests.describe(stored), expected)
            on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
            how = ocp.args.PyTreeRestore(restore_args=on_host)
            tree = self._manager.restore(step, args=ocp.args.Composite(default=how))["default"]
            digests.verify(digests.by_name(tree), expected)

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

    def _warn_damaged(self, damaged: Mapping[int, DamagedCheckpoint], used: int) -> None:
        for error in damaged.values():
            log(f"warning: {error}. Checkpoint {used} is used instead")

    def _read(self, step: int, like: Any, fresh: Callable[[], Any] | None, part: bool) -> Any:
        with self._translate_errors(step):
            expected = self._digests(step)
            stored = self._manager.item_metadata(step)["default"].tree
            kinds = digests.describe(stored)
            if expected:
                digests.verify_kinds(kinds, expected)
        if callable(like):
            like = like({name: leaf.shape for name, leaf in digests.by_name(stored).items()})
        self._check_fits(step, kinds, digests.describe(like), fresh is not None, part)
        wanted = digests.by_name(like)
        with self._translate_errors(step):
            found = self._restore(step, stored, wanted)
            if expected:
                digests.verify(found, expected)
        absent = digests.by_name(fresh()) if fresh and not wanted.keys() <= found.keys() else {}
        leaves = [found[name] if name in found else absent[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _digests(self, step: int) -> digests.Leaves:
        """What the leaves of `step` must be; empty for one of a version without digests."""
        file = self.directory / str(step) / "digests" / digests.FILE
        if file.exists():
            version, leaves = digests.read(file)
        else:
            metadata = self._manager.metadata(step).custom_metadata or {}
            version, leaves = metadata.get("format", 1), {}
            if version == FORMAT:
                raise DamagedCheckpoint(f"{file} is missing")
        if version > FORMAT:
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} has format {version}, and this version "
                f"reads up to {FORMAT}. Use the newer version that wrote it"
            )
        return leaves

    def _restore(self, step: int, stored: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The leaves of a checkpoint that are wanted, by name."""
        names = digests.by_name(stored)
        leaves = [wanted.get(name, ocp.PLACEHOLDER) for name in names]  # which is not read
        request = jax.tree.unflatten(jax.tree.structure(stored), leaves)
        # The sharding has to be said once more, leaf by leaf.
        how = ocp.args.PyTreeRestore(request, ocp.checkpoint_utils.construct_restore_args(request))
        tree = self._manager.restore(step, args=ocp.args.Composite(default=how))["default"]
        return {name: leaf for name, leaf in digests.by_name(tree).items() if name in wanted}

    def _check_fits(
        self,
        step: int,
        stored: dict[str, str],
        like: dict[str, str],
        may_lack: bool,
        may_have_more: bool,
    ) -> None:
        """Compares names, shapes and types, since Orbax restores float32 into bfloat16 silently."""
        for name, (old, new) in settings.differences(stored, like).items():
            if (old is None and may_lack) or (new is None and may_have_more):
                continue
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} does not fit the config: {name} is "
                f"{old or 'absent'} in the checkpoint and {new or 'absent'} in the network"
            )

    @contextlib.contextmanager
    def _translate_errors(self, step: int) -> Iterator[None]:
        """Says which checkpoint cannot be read, whatever was raised, and whether it is damaged.

        Of several processes all find damaged what one does, so that they go on from the same.
        """
        checkpoint, damage, cause = self.directory / str(step), "", None
        try:
            yield
        except Exception as error:  # all kinds, of files that are damaged or cannot be read
            if isinstance(error, CheckpointError) and not isinstance(error, DamagedCheckpoint):
                raise
            what = digests.first_line(error)
            if not digests.is_damage(error):
                raise CheckpointError(f"checkpoint {checkpoint} cannot be read: {what}") from error
            damage, cause = f"checkpoint {checkpoint} is damaged: {what}", error
        if damage := first_error(damage):
            raise DamagedCheckpoint(damage) from cause


class _DigestsHandler(ocp.AsyncCheckpointHandler):
    """Writes the digests beside the arrays, from process 0 and in the background."""

    async def async_save(self, directory: epath.Path, args: "_DigestsSave") -> list:
        if not is_main_process():
            return []
        leaves = digests.on_host(args.state)

        async def write() -> None:
            digests.write(directory / digests.FILE, FORMAT, leaves)

        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name="digests")]

    def save(self, *_) -> None:
        raise NotImplementedError("saves are asynchronous")

    def restore(self, *_) -> None:
        raise NotImplementedError("Checkpoints reads the file")


@ocp.args.register_with_handler(_DigestsHandler, for_save=True, for_restore=True)
@dataclass
class _DigestsSave(ocp.args.CheckpointArgs):
    state: Any


def first_error(text: str) -> str:
    """The text of the first process that has one; waits for all."""
    return processes.gather_and_reduce(text, lambda texts: next(filter(None, texts), ""))
