"""The networks that are evaluated: checkpoints of runs and imported weights, one or several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import config as settings
from inception import defaults
from inception.data.preprocessing import Preprocessing
from inception.data.sources import Source
from inception.errors import CheckpointError, ConfigError
from inception.network.model import Inception
from inception.weights import Pretrained, load_any, locate, registry
from inception.weights.labels import imagenet_names
from inception.workdir.identity import check_classes, check_model, has_checkpoint, is_run
from inception.workdir.logbook import log
from inception.workdir.restore import TrainedRun, restore_run

# The fields of `Preprocessing` that the config may set, and the config's names for them.
_GEOMETRY = {
    "image_size": "image_size",
    "method": "eval.preprocessing",
    "crop_fraction": "eval.crop_fraction",
}


@dataclass(frozen=True)
class Member:
    """A network that is evaluated, alone or in an ensemble.

    Attributes:
      path: WORKDIR/checkpoints/STEP, or the path, name or address of the weights.
      name: Name in that of the file of results.
      step: Step of the checkpoint; 0 for imported weights.
      dataset: Data set that it was trained on; "" if that is not known.
      model: The network.
      weights: The "raw" and the "ema" variables; imported weights are both.
      preprocessing: Preprocessing of the images.
      has_own_preprocessing: Whether the preprocessing came with the weights.
      classes: The network's class of each class of the data, int32 [classes of the data];
        None if they are the same.
    """

    path: str
    name: str
    step: int
    dataset: str
    model: Inception
    weights: dict[str, Any]
    preprocessing: Preprocessing
    has_own_preprocessing: bool
    classes: np.ndarray | None

    def variables(self, weights: str) -> dict:
        """The model's variables with the "ema" or the "raw" weights."""
        return self.weights[weights]


def find(
    config: ConfigDict, workdir: epath.Path, step: int | None, source: Source, mesh: Mesh
) -> list[Member]:
    """The members of config.eval.ensemble; without it the run in `workdir`, or config.init_from.

    Args:
      config: Config of the evaluation.
      workdir: Workdir of the run.
      step: Step of the checkpoint; None for the newest.
      source: Data to evaluate on, whose classes the members must have.
      mesh: Devices to evaluate on.

    Raises:
      CheckpointError, WeightsError: If a member cannot be read, or has other classes.
      ConfigError: If the ensemble is not valid.
    """
    paths = [name.strip() for name in config.eval.ensemble.split(",") if config.eval.ensemble]
    if not all(paths):
        raise ConfigError(
            f"config.eval.ensemble={config.eval.ensemble!r}; it must be PATH1,PATH2 without empty "
            "paths"
        )
    if paths and step is not None:
        raise ConfigError(
            f"--step={step} and config.eval.ensemble: name WORKDIR/checkpoints/{step} in it instead"
        )
    if not paths and config.init_from and step is None and not has_checkpoint(workdir):
        paths = [config.init_from]
    if not paths:
        check_model(workdir, config)
        return [_of_run(config, restore_run(workdir, step, dtype=config.dtype, mesh=mesh), source)]
    members = [
        _of_weights(config, path, load_any(path), source)
        if locate.named(path) or not is_run(path)
        else _of_run(config, restore_run(path, dtype=config.dtype, mesh=mesh), source)
        for path in paths
    ]
    if len({member.path for member in members}) < len(members):
        raise ConfigError(f"config.eval.ensemble={config.eval.ensemble!r} names a checkpoint twice")
    return members


def _of_run(config: ConfigDict, run: TrainedRun, source: Source) -> Member:
    """A run: the config decides how images are cropped, and its training how they are scaled."""
    if run.model.num_classes != source.num_classes:
        raise CheckpointError(
            f"the run in {run.workdir} has {run.model.num_classes} classes and the data has "
            f"{source.num_classes}. Evaluate it on data of the same classes"
        )
    check_classes(run.workdir, run.class_names, source)
    own = run.preprocessing
    return Member(
        path=str(run.workdir / "checkpoints" / str(run.step)),
        name=str(run.step),
        step=run.step,
        dataset=run.config.dataset,
        model=run.model,
        weights={weights: run.variables(weights) for weights in ("ema", "raw")},
        has_own_preprocessing=False,
        preprocessing=replace(settings.preprocessing(config), mean=own.mean, std=own.std),
        classes=None,
    )


def _of_weights(config: ConfigDict, path: str, pretrained: Pretrained, source: Source) -> Member:
    """Imported weights, with their own preprocessing where the config has its default values."""
    fields, known = settings.flatten(config), settings.flatten(defaults.get_config())
    if pretrained.activation != "softmax":
        log(
            f"warning: {path} was trained with a {pretrained.activation} of each class; here it is "
            "evaluated with a softmax over the classes"
        )
    changed: dict[str, Any] = {
        field: fields[name] for field, name in _GEOMETRY.items() if fields[name] != known[name]
    }
    return Member(
        path=path,
        name=registry.file_name(path) if locate.named(path) else epath.Path(path).name,
        step=0,
        dataset="",
        model=pretrained.model.clone(dtype=jnp.dtype(config.dtype)),
        weights=dict.fromkeys(("ema", "raw"), pretrained.variables),
        has_own_preprocessing=True,
        preprocessing=replace(pretrained.preprocessing, **changed),
        classes=classes_of(path, pretrained.labels, pretrained.model.num_classes, source),
    )


def classes_of(
    path: str, labels: Sequence[str], num_classes: int, source: Source
) -> np.ndarray | None:
    """Maps each class of the data to the network's class, by name if both have names.

    ImageNet's classes are also found by their WordNet ids. Classes that the data does not have,
    such as the background, cannot be the answer. If names do not match and there are equally many
    classes, they are taken to be the same, with a warning if both have names.

    Args:
      path: Path of the weights.
      labels: Class names of the network; () if it has none.
      num_classes: Number of classes of the network.
      source: Data to evaluate on.

    Returns:
      Int32 [classes of the data], or None if all classes are the same.

    Raises:
      CheckpointError: Naming the classes that the network does not have.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    names = [
        name if name in numbers else imagenet_names().get(name, name) for name in source.class_names
    ]
    missing = [name for name in names if name not in numbers]
    if numbers and names and not missing:
        found = [numbers[name] for name in names]
        return None if found == [*range(num_classes)] else np.array(found, np.int32)
    if num_classes == source.num_classes:
        check_classes(path, labels, source)
        return None
    has_background = tuple(labels[:1]) == ("background",)
    if has_background and not names and num_classes - 1 == source.num_classes:
        return np.arange(1, num_classes, dtype=np.int32)
    reason = (
        f"the weights have no classes {missing[:5]}"
        if numbers and names
        else "they cannot be matched by name, since not both have names"
    )
    raise CheckpointError(
        f"{path} has {num_classes} classes, the data has {source.num_classes}, and {reason}. "
        "Evaluate it on data of its classes, or import it with class names"
    )
