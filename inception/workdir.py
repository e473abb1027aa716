"""Runs and their workdirs: whose a workdir is, of what data, and the network that it has trained.

A workdir holds one run: `config.json`, the resolved config, `data.json`, the classes and the number
of images that it trains on, and `checkpoints/`. A run continues only where both are the same.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import config as config_lib
from inception import optimizers, sharding
from inception.checkpoints import Checkpoints
from inception.data.sources import Source
from inception.errors import CheckpointError, local_path
from inception.logbook import log, write_json
from inception.model import Inception
from inception.state import TrainState, abstract_state, make_model

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


def claim(workdir: str | Path, config: ConfigDict, source: Source) -> None:
    """Makes `workdir` the run of this config on this data, after `check`.

    Raises:
      CheckpointError: see `check`.
      UserError: if it cannot be written.
    """
    check(workdir, config, source)
    data = {"training_images": len(source), "classes": list(source.class_names)}
    write_json(Path(workdir) / "config.json", config.to_dict())
    write_json(Path(workdir) / "data.json", data)


def check(workdir: str | Path, config: ConfigDict, source: Source) -> None:
    """Checks that `workdir` has no run, or one that this config and this data continue.

    A run that ended before it had trained leaves nothing worth keeping: another may replace it.

    Raises:
      CheckpointError: naming the fields of the config that differ; the classes, for then the labels
        are others too; or the number of images, for then their order is another.
    """
    if not has_trained(workdir):
        return
    if changed := _changed(workdir, config, lambda name: not _may_change(name)):
        raise CheckpointError(
            f"{workdir} holds a run of another config. Choose another --workdir, or set back:\n"
            + changed
        )
    kept, names = _read_data(workdir), list(source.class_names)
    if (old := kept.get("classes", names)) != names:
        raise CheckpointError(
            f"{workdir}/data.json lists {len(old)} classes and the data now has {len(names)} or "
            f"others: {sorted({*old} ^ {*names})[:5] or 'their order differs'}. Restore the data, "
            "or choose another --workdir"
        )
    if (count := kept.get("training_images", len(source))) != len(source):
        raise CheckpointError(
            f"the run in {workdir} trains on {count:,} images and the data now has {len(source):,}."
            " Restore the data, or choose another --workdir"
        )


def has_trained(workdir: str | Path) -> bool:
    """Whether a run has left checkpoints or metrics."""
    metrics = Path(workdir) / "metrics.jsonl"
    logged = metrics.exists() and metrics.stat().st_size > 0
    return logged or any(Path(workdir).glob("checkpoints/[0-9]*"))


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
    except OSError as error:
        raise CheckpointError(f"{workdir} holds no run: {file}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is no config: {error}") from error


def as_workdir(path: str | Path) -> Path:
    """A workdir's path, with ~ expanded.

    Raises:
      CheckpointError: for a bucket's address.
    """
    return local_path("workdir", path, CheckpointError)


def check_classes(workdir: str | Path, names: Sequence[str]) -> None:
    """Compares the run's classes with those of data to evaluate on, and says where they differ.

    Raises:
      CheckpointError: if they are more or fewer, or the same in another order, so that every label
        would be wrong.
    """
    kept, names = _read_data(workdir).get("classes", []), list(names)
    if not kept or not names or kept == names:
        return
    if len(kept) != len(names):
        raise CheckpointError(
            f"the run in {workdir} has {len(kept)} classes and the data has {len(names)}: evaluate "
            "it on data of the same classes"
        )
    number = next(i for i, (old, new) in enumerate(zip(kept, names, strict=True)) if old != new)
    differ = f"class {number} is {kept[number]!r} for {workdir} and {names[number]!r} in the data"
    if sorted(kept) == sorted(names):
        raise CheckpointError(f"{differ}: the classes are in another order, sort them as the run's")
    log(f"warning: {differ}; the results mean something only if these are the same")


def _read_data(workdir: str | Path) -> dict[str, Any]:
    file = Path(workdir) / "data.json"
    try:
        return json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def locate(path: str | Path) -> tuple[Path, int | None]:
    """The workdir and the step that WORKDIR/checkpoints/STEP means; WORKDIR means the newest."""
    path = as_workdir(path)
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None


@dataclass(frozen=True)
class Trained:
    """A run's network with the weights of one of its checkpoints."""

    workdir: Path
    config: ConfigDict
    step: int
    model: Inception
    state: TrainState


def restore(
    workdir: str | Path,
    num_classes: int,
    step: int | None = None,
    dtype: str = "float32",
    mesh: Mesh | None = None,
) -> Trained:
    """Reads a run's network, as its config.json describes it, and a checkpoint of it.

    Args:
      workdir: of the run.
      num_classes: of the data set.
      step: which checkpoint; None for the newest.
      dtype: to compute in.
      mesh: the devices; None for all.

    Raises:
      CheckpointError: if it is not there or does not fit.
    """
    mesh = mesh or sharding.make_mesh()
    config = read_config(workdir)
    config.dtype = dtype
    model = make_model(config, num_classes)
    optimizer = optimizers.make_optimizer(config, lambda _: 0.0)
    with Checkpoints(workdir) as saved:
        step, state = saved.restore(abstract_state(config, model, optimizer, mesh), step)
    return Trained(Path(workdir), config, step, model, state)


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
