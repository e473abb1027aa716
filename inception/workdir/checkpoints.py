"""Reads the checkpoints of a run, with Orbax.

`WORKDIR/checkpoints/STEP/` is a complete TrainState and the checksums of its leaves (digests.py).
It is restored leaf by leaf, by name, so that weights can be read without the optimizer's state, and
a state that has since gained leaves can still be restored.

`Checkpoints` changes nothing, and may read while another process trains; a run that trains uses
`CheckpointWriter` (checkpoint_writer.py).
"""

import contextlib
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

FORMAT = 3  # written by this version; 2, and 1 without a number, had no checksums


class Checkpoints:
    """The checkpoints of one workdir, to read. Use as a context manager.

    Args:
      workdir: Absolute path, or address in a bucket; see `identity.resolve_workdir`.

    Attributes:
      directory: Path of WORKDIR/checkpoints.
    """

    def __init__(self, workdir: epath.PathLike):
        self.directory = epath.Path(workdir) / "checkpoints"
        self._manager = self._open()

    def _open(self, clean: bool = False) -> ocp.CheckpointManager:
        """Orbax's manager, which deletes no checkpoints; `clean` deletes unfinished saves."""
        options = ocp.CheckpointManagerOptions(
            create=False,
            # If a folder cannot be created, Orbax's threads would wait for it for minutes.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=clean,
            lightweight_initialize=True,  # damaged metadata of one does not hide the others
        )
        handlers = {"default": ocp.PyTreeCheckpointHandler(), "digests": _DigestsHandler()}
        directory = LiteralPath(self.directory)  # Orbax searches it with glob patterns
        return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)

    def _start_save(self, step: int, state: Any) -> None:
        """Copies a state and starts to write it, in the background."""
        parts = {"default": ocp.args.PyTreeSave(state), "digests": _DigestsSave(state)}
        args, metadata = ocp.args.Composite(**parts), {"format": FORMAT}
        self._manager.save(step, args=args, custom_metadata=metadata, force=True)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def restore(
        self,
        like: Any,
        step: int | None = None,
        *,
        init_missing: Callable[[], Any] | None = None,
        allow_extra: bool = False,
    ) -> tuple[int, Any]:
        """Restores the checkpoint of `step`, or the newest that is not damaged.

        Args:
          like: Tree of `jax.ShapeDtypeStruct` with the shapes, types and shardings to restore; or
            a function that makes it from the shapes of the leaves by name, "params/Logits/bias".
          step: Step of the checkpoint; None for the newest, where damaged ones are skipped with a
            warning.
          init_missing: Function that makes an initial state. Its values are used for leaves that a
            checkpoint of an older version lacks; None refuses such a checkpoint.
          allow_extra: Whether the checkpoint may have leaves that `like` lacks; they are not read.

        Returns:
          The step and the state.

        Raises:
          DamagedCheckpoint: If that checkpoint, or each of them, is damaged.
          CheckpointError: If it does not exist, cannot be read, was written by a newer version, or
            has arrays of other names, shapes or types.
        """
        newest = self.resolve_step(step)
        damaged: dict[int, DamagedCheckpoint] = {}
        for candidate in reversed(self.steps()) if step is None else [newest]:
            try:
                state = self._read(candidate, like, init_missing, allow_extra)
            except DamagedCheckpoint as error:
                damaged[candidate] = error
            else:
                self._warn_damaged(damaged, candidate)
                return candidate, state
        others = [other for other in self.steps() if other not in damaged]
        raise DamagedCheckpoint(
            f"{damaged[newest]}. "
            + (f"Other checkpoints: {others}" if others else "There is no undamaged one")
        )

    def verify(self, step: int) -> None:
        """Reads a whole checkpoint into the host's memory and compares it with its checksums.

        Raises:
          DamagedCheckpoint: If it is damaged.
          CheckpointError: If it cannot be read.
        """
        with self._translate_errors(step):
            expected = self._digests(step)
            stored = self._manager.item_metadata(step)["default"].tree
            digests.verify_kinds(digests.describe(stored), expected)
            on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
            how = ocp.args.PyTreeRestore(restore_args=on_host)
            tree = self._manager.restore(step, args=ocp.args.Composite(default=how))["default"]
            digests.verify(digests.by_name(tree), expected)

    def resolve_step(self, step: int | None = None) -> int:
        """`step` if it was saved; the newest step for None.

        Raises:
          CheckpointError: If there is no such checkpoint.
        """
        steps = self.steps()
        if not steps or step not in (None, *steps):
            wanted = "a checkpoint" if step is None else f"step {step}"
            raise CheckpointError(
                f"{self.directory} does not have {wanted}; it has {steps or None}"
            )
        return steps[-1] if step is None else step

    def _warn_damaged(self, damaged: Mapping[int, DamagedCheckpoint], used: int) -> None:
        for error in damaged.values():
            log(f"warning: {error}. Checkpoint {used} is used instead")

    def _read(
        self, step: int, like: Any, init_missing: Callable[[], Any] | None, allow_extra: bool
    ) -> Any:
        with self._translate_errors(step):
            expected = self._digests(step)
            stored = self._manager.item_metadata(step)["default"].tree
            kinds = digests.describe(stored)
            if expected:
                digests.verify_kinds(kinds, expected)
        if callable(like):
            like = like({name: leaf.shape for name, leaf in digests.by_name(stored).items()})
        self._check_fits(step, kinds, digests.describe(like), init_missing is not None, allow_extra)
        wanted = digests.by_name(like)
        with self._translate_errors(step):
            found = self._restore(step, stored, wanted)
            if expected:
                digests.verify(found, expected)
        if init_missing and not wanted.keys() <= found.keys():
            found = {**digests.by_name(init_missing()), **found}
        leaves = [found[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _digests(self, step: int) -> digests.Leaves:
        """The checksums of a checkpoint; empty if it is of a version without them."""
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
        """The wanted leaves of a checkpoint, by name."""
        names = digests.by_name(stored)
        leaves = [wanted.get(name, ocp.PLACEHOLDER) for name in names]  # not read
        request = jax.tree.unflatten(jax.tree.structure(stored), leaves)
        # Orbax takes the sharding from these arguments, not from `request`.
        how = ocp.args.PyTreeRestore(request, ocp.checkpoint_utils.construct_restore_args(request))
        tree = self._manager.restore(step, args=ocp.args.Composite(default=how))["default"]
        return {name: leaf for name, leaf in digests.by_name(tree).items() if name in wanted}

    def _check_fits(
        self,
        step: int,
        stored: dict[str, str],
        like: dict[str, str],
        allow_missing: bool,
        allow_extra: bool,
    ) -> None:
        """Compares names, shapes and types: Orbax would restore float32 as bfloat16 silently."""
        for name, (old, new) in settings.differences(stored, like).items():
            if (old is None and allow_missing) or (new is None and allow_extra):
                continue
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)} does not fit the config: {name} is "
                f"{old or 'absent'} in the checkpoint and {new or 'absent'} in the network"
            )

    @contextlib.contextmanager
    def _translate_errors(self, step: int) -> Iterator[None]:
        """Turns any error into one that names the checkpoint and says whether it is damaged.

        If one of several processes finds it damaged, all do, so that they restore the same one.
        """
        checkpoint, damage, cause = self.directory / str(step), "", None
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            if isinstance(error, CheckpointError) and not isinstance(error, DamagedCheckpoint):
                raise
            what = digests.first_line(error)
            if not digests.is_damage(error):
                raise CheckpointError(f"checkpoint {checkpoint} cannot be read: {what}") from error
            damage, cause = f"checkpoint {checkpoint} is damaged: {what}", error
        if damage := first_error(damage):
            raise DamagedCheckpoint(damage) from cause


class _DigestsHandler(ocp.AsyncCheckpointHandler):
    """Writes the checksums next to the arrays, from process 0 and in the background."""

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
    """The first text of all processes' that is not empty, or ""; waits for all processes."""
    return processes.gather_and_reduce(text, lambda texts: next(filter(None, texts), ""))
