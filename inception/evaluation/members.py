"""What is evaluated: checkpoints of runs, and weights of anybody, one or several together."""

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
from inception.workdir.restore import TrainedRun, restore_run

# What the config may say of an image's way into a network, by the fields of `Preprocessing`.
_GEOMETRY = {
    "image_size": "image_size",
    "method": "eval.preprocessing",
    "crop_fraction": "eval.crop_fraction",
}


@dataclass(frozen=True)
class Member:
    """A network that is evaluated, alone or in an ensemble.

    Attributes:
      path: WORKDIR/checkpoints/STEP, or that of the weights, or their name or address.
      name: what a file of results calls it.
      step: of the checkpoint; 0 of weights.
      dataset: that it was trained on; "" where that is not known.
      model: the network.
      weights: the "raw" and the "ema" variables; the same ones of weights.
      preprocessing: of the images.
      has_own_preprocessing: whether that came with weights instead of the config.
      classes: which of the network's classes each of the data's is; None where they are the same.
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
    """Those of config.eval.ensemble, or the run in `workdir`; without one, config.init_from.

    Args:
      config: of the evaluation.
      workdir: of the run.
      step: which of its checkpoints; None for the newest.
      source: the data, whose classes they must know.
      mesh: the devices.

    Raises:
      CheckpointError, WeightsError: if one cannot be read, or has other classes.
      ConfigError: if the ensemble makes no sense.
    """
    paths = [name.strip() for name in config.eval.ensemble.split(",") if config.eval.ensemble]
    if not all(paths):
        raise ConfigError(
            f"config.eval.ensemble={config.eval.ensemble!r}; it must be PATH1,PATH2 without gaps"
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
    """A run sees the images as the config says, scaled as in its training."""
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
    """Weights have a preprocessing of their own; what the config sets beside its default counts."""
    fields, known = settings.flatten(config), settings.flatten(defaults.get_config())
    changed: dict[str, Any] = {
        ours: fields[name] for ours, name in _GEOMETRY.items() if fields[name] != known[name]
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
    """Which of a network's classes each of the data's is, by their names where both have them.

    ImageNet's classes are found by their WordNet ids, too. Classes that the data lack, such as the
    background, cannot be the answer. Without names, equal numbers of classes are taken for the
    same; other names are warned of.

    Args:
      path: of the weights.
      labels: the names of the network's classes, () if nobody named them.
      num_classes: of the network.
      source: the data.

    Returns:
      int32 [classes of the data], or None where all classes are the same.

    Raises:
      CheckpointError: naming what the network has no class for.
    """
    place = {label: number for number, label in enumerate(labels)}
    called = [
        name if name in place else imagenet_names().get(name, name) for name in source.class_names
    ]
    missing = [name for name in called if name not in place]
    if place and called and not missing:
        numbers = [place[name] for name in called]
        return None if numbers == [*range(num_classes)] else np.array(numbers, np.int32)
    if num_classes == source.num_classes:
        check_classes(path, labels, source)
        return None
    if (
        tuple(labels[:1]) == ("background",)
        and not called
        and num_classes - 1 == source.num_classes
    ):
        return np.arange(1, num_classes, dtype=np.int32)
    reason = (
        f"the first has none called {missing[:5]}"
        if place and called
        else "not both have names to match them by"
    )
    raise CheckpointError(
        f"{path} has {num_classes} classes, the data has {source.num_classes}, and {reason}. "
        "Evaluate it on data of its classes, or import it with their names"
    )
