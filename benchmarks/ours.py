"""Our side: the run's own training step, and the predictor."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.work import Side, Work
from inception import defaults, runtime
from inception.config import preprocessing, set_value
from inception.distributed import sharding
from inception.network.model import make_model
from inception.predict.predictor import Predictor
from inception.training.state import build
from inception.training.step import TrainStep

IMAGENET = 1_281_167  # training images, for the schedule of the learning rate


def config_of(work: Work) -> ConfigDict:
    """The config that the work's fields describe."""
    config = defaults.get_config()
    for name, value in work.fields.items():
        set_value(config, name, value)
    return config


def synthetic_batch(work: Work) -> dict[str, np.ndarray]:
    """Images of noise with labels: what a step computes does not depend on them."""
    numbers = np.arange(work.batch, dtype=np.int32)
    shape = (work.batch, work.size, work.size, 3)
    return {
        "image": np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8),
        "label": numbers % work.num_classes,
        "epoch": np.zeros_like(numbers),
        "example": numbers,
    }


def train(work: Work) -> Side:
    """The whole training step of train_step.py, on one batch that lies on the devices."""
    runtime.tune_host_runtime()  # as main.py
    config, mesh = config_of(work), sharding.make_mesh()
    recipe = build(config, work.num_classes, IMAGENET / work.batch)
    batch = next(sharding.to_devices(mesh, [synthetic_batch(work)]))
    compiled = TrainStep(recipe, mesh)
    outputs: Any = (compiled.pack(recipe.create_state(mesh)), None)

    def step() -> None:
        nonlocal outputs
        outputs = compiled(outputs[0], batch)

    group = config.model.batch_norm_group
    normalized = f"groups of {group}" if 0 < group < work.batch else "the batch"
    does = (
        f"augmentation {config.augmentation}, both heads with label smoothing, gradients, clipping,"
        f" weight decay, RMSProp, running averages; batch norm over {normalized}"
    )
    return Side(step, lambda: jax.block_until_ready(outputs), does, device_bytes)


def infer(work: Work) -> Side:
    """The predictor, with batch normalization folded, on uint8 images that lie on the devices."""
    runtime.tune_host_runtime()
    config, mesh = config_of(work), sharding.make_mesh()
    model = make_model(config, work.num_classes)
    predict = Predictor(
        model,
        jax.device_put(random_variables(model, work.size), sharding.replicated(mesh)),
        preprocessing(config),
        batch_size=work.batch,
        mesh=mesh,
    )
    images = next(sharding.to_devices(mesh, [synthetic_batch(work)]))["image"]
    does = "uint8 to logits by inception.Predictor, batch norm folded"
    return Side(*repeated(lambda: predict.on_devices(images)), does, device_bytes)


def random_variables(model: nn.Module, size: int) -> dict[str, Any]:
    """Variables that keep activations near 1 and that no initialization is compiled for.

    Kernels are normal with variance 2 / inputs (He), statistics and scales near 1, offsets near 0.
    """
    rng = np.random.default_rng(0)

    def make(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.ndim > 1:
            spread = np.sqrt(2 / math.prod(leaf.shape[:-1]))
            return (spread * rng.standard_normal(leaf.shape)).astype(np.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("var", "scale") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return jax.tree_util.tree_map_with_path(make, shapes)


def repeated(call: Callable[[], Any]) -> tuple[Callable[[], None], Callable[[], Any]]:
    """`step` and `wait` of a `Side` that makes the same call again and again."""
    outputs: Any = None

    def step() -> None:
        nonlocal outputs
        outputs = call()

    return step, lambda: jax.block_until_ready(outputs)


def device_bytes() -> int | None:
    """The most bytes of the first device that were in use; None on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
