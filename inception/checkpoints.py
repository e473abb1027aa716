"""Saves and restores runs: the only file that knows Orbax.

A workdir holds one run: `config.json`, the resolved config, and `checkpoints/STEP/`, each a whole
TrainState. Saves are asynchronous; leaving `Checkpoints` waits for the one in flight, also when an
exception passes through.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from inception import config as config_lib
from inception.errors import UserError, local_path
from inception.logbook import say, write_json

# A run may go on with other values of these: where data lies, what stops it, what it reports.
MAY_CHANGE = (
    "data_dir",
    "data_threads",
    "on_bad_record",
    "num_epochs",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
)


class CheckpointError(UserError, RuntimeError):
    """A workdir or checkpoint that cannot be used; the message says why and what to do."""


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
        self._manager.wait_until_finished()
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps that are there, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Saves `state` as `step`, in the background; does nothing if that step is there."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any]:
        """Restores the newest checkpoint, or that of `step`.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with shardings, as the state should come back.
          step: which; None for the newest.

        Returns:
          The step and the state.

        Raises:
          CheckpointError: if it is not there or holds arrays of other names, shapes or types.
        """
        steps = self.steps()
        if not steps or step not in (None, *steps):
            wanted = "a checkpoint" if step is None else f"step {step}"
            raise CheckpointError(
                f"{self.directory} does not hold {wanted}; it has {steps or None}"
            )
        step = steps[-1] if step is None else step
        self._check(like, step)
        return step, self._manager.restore(step, args=ocp.args.StandardRestore(like))

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


def claim(workdir: str | Path, config: ConfigDict) -> None:
    """Makes `workdir` this config's, or checks that it is.

    Raises:
      CheckpointError: if it holds another config's run, naming the fields that differ.
      UserError: if it cannot be written.
    """
    file = Path(workdir) / "config.json"
    if file.exists():
        if changed := _changed(workdir, config, lambda name: not _may_change(name)):
            raise CheckpointError(
                f"{workdir} holds a run of another config. Choose another --workdir, or set back:\n"
                + changed
            )
    elif any(Path(workdir).glob("checkpoints/[0-9]*")):
        raise CheckpointError(f"{workdir} holds checkpoints but no config.json: whose are they?")
    write_json(file, config.to_dict())


def check_model(workdir: str | Path, config: ConfigDict) -> None:
    """Checks that the run in `workdir` has this config's network.

    Raises:
      CheckpointError: naming the fields that differ, or if there is no run.
    """
    if changed := _changed(workdir, config, lambda name: name.startswith("model.")):
        raise CheckpointError(f"{workdir} holds a run of another network. Set:\n{changed}")


def read_config(workdir: str | Path) -> ConfigDict:
    """The config of the run in `workdir`.

    Raises:
      CheckpointError: if there is no run.
    """
    file = Path(workdir) / "config.json"
    try:
        return ConfigDict(json.loads(file.read_text()))
    except FileNotFoundError as error:
        raise CheckpointError(f"{workdir} holds no run: {file} does not exist") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is no config: {error}") from error


def as_workdir(path: str | Path) -> Path:
    """A workdir's path, with ~ expanded.

    Raises:
      CheckpointError: for a bucket's address.
    """
    return local_path("workdir", path, CheckpointError)


def keep_class_names(workdir: str | Path, names: Sequence[str]) -> None:
    """Writes the names of the classes once; a run that continues must find the same.

    Raises:
      CheckpointError: if they are others, for then its labels are too.
    """
    file, names = Path(workdir) / "classes.json", list(names)
    kept = json.loads(file.read_text()) if file.exists() else names
    if kept != names:
        raise CheckpointError(
            f"{file} lists {len(kept)} classes and the data now has {len(names)} or others: "
            f"{sorted({*kept} ^ {*names})[:5] or 'their order differs'}. Restore the data, or "
            "choose another --workdir"
        )
    write_json(file, names)


def check_class_names(workdir: str | Path, names: Sequence[str]) -> None:
    """Compares the run's classes with those of data to evaluate on, and says where they differ.

    Raises:
      CheckpointError: if they are the same in another order, so that every label would be wrong.
    """
    file = Path(workdir) / "classes.json"
    kept, names = json.loads(file.read_text()) if file.exists() else [], list(names)
    if not kept or not names or kept == names:
        return
    pairs = enumerate(itertools.zip_longest(kept, names))
    number, old, new = next((i, old, new) for i, (old, new) in pairs if old != new)
    differ = f"class {number} is {old!r} in {file} and {new!r} in the data"
    if sorted(kept) == sorted(names):
        raise CheckpointError(f"{differ}: the classes are in another order, sort them as the run's")
    say(f"warning: {differ}; the results mean something only if these are the same")


def locate(path: str | Path) -> tuple[Path, int | None]:
    """The workdir and the step that WORKDIR/checkpoints/STEP means; WORKDIR means the newest."""
    path = as_workdir(path)
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None


def _may_change(name: str) -> bool:
    return name in MAY_CHANGE or name.startswith("eval.")


def _changed(workdir: str | Path, config: ConfigDict, matters) -> str:
    stored = config_lib.flatten(read_config(workdir))
    changes = config_lib.differences(stored, config_lib.flatten(config))
    return "\n".join(
        f"  config.{name}: {old!r} in the workdir, {new!r} now"
        for name, (old, new) in changes.items()
        if matters(name)
    )
