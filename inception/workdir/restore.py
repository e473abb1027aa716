"""Restores the network that a run has trained, from its workdir."""

from dataclasses import dataclass
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import config as settings
from inception.data.preprocessing import Preprocessing
from inception.distributed import sharding
from inception.network.model import Inception, blank_image, make_model, variables_of
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.identity import class_names, read_config, resolve_checkpoint


@dataclass(frozen=True)
class TrainedRun:
    """A run's network with the weights of one of its checkpoints.

    Attributes:
      workdir: Folder of the run.
      config: Config of the run.
      step: Step of the checkpoint.
      model: The network.
      weights: Leaves of the state that `variables` selects from.
      class_names: Names of the training data's classes; () if it has none.
      preprocessing: Preprocessing of the run's evaluation.
    """

    workdir: epath.Path
    config: ConfigDict
    step: int
    model: Inception
    weights: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    def variables(self, weights: str = "ema") -> dict:
        """The model's variables with the "ema" or the "raw" weights."""
        return variables_of(weights, self.weights)


def restore_run(
    path: epath.PathLike,
    step: int | None = None,
    *,
    dtype: str = "float32",
    mesh: Mesh | None = None,
) -> TrainedRun:
    """Builds a run's network from its config.json, with the weights of a checkpoint.

    Args:
      path: Workdir of the run, or WORKDIR/checkpoints/STEP.
      step: Step of the checkpoint; None for the newest that is not damaged.
      dtype: Type to compute in.
      mesh: Devices to restore to; None for all.

    Raises:
      CheckpointError: If there is no such checkpoint, or it does not fit or is damaged.
    """
    workdir, named = resolve_checkpoint(path)
    mesh = mesh or sharding.make_mesh()
    config = read_config(workdir)
    config.dtype = dtype

    def like(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        model = make_model(config, num_classes=shapes["params/Logits/bias"][0])
        return abstract_weights(model, config.image_size, mesh)

    with Checkpoints(workdir) as saved:
        step, weights = saved.restore(like, step if named is None else named, allow_extra=True)
    model = make_model(config, num_classes=weights["params"]["Logits"]["bias"].shape[0])
    names = class_names(workdir)
    preprocessing = settings.preprocessing(config)
    return TrainedRun(workdir, config, step, model, weights, names, preprocessing)


def abstract_weights(model: Inception, image_size: int, mesh: Mesh) -> dict[str, Any]:
    """The leaves of a `TrainState` that evaluation and prediction need, as shapes and types."""
    variables = jax.eval_shape(model.init, jax.random.key(0), blank_image(image_size))
    both = {name: variables[name] for name in ("params", "batch_stats")}
    return sharding.abstract(mesh, {**both, **{f"ema_{name}": tree for name, tree in both.items()}})
