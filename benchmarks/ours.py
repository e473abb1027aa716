"""Ours: the training step of a run, and the predictor."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.cases import Case, Contender
from inception import defaults, runtime
from inception.config import preprocessing, set_value
from inception.distributed import sharding
from inception.network.model import make_model
from inception.predict.predictor import Predictor
from inception.training.state import build
from inception.training.step import TrainStep

IMAGENET = 1_281_167  # training images, for the learning rate schedule


def config_of(case: Case) -> ConfigDict:
    """The config of the case's fields."""
    config = defaults.get_config()
    for name, value in case.fields.items():
        set_value(config, name, value)
    return config


def synthetic_batch(case: Case) -> dict[str, np.ndarray]:
    """A batch of noise with labels, as `train_stream` yields them."""
    numbers = np.arange(case.batch, dtype=np.int32)
    shape = (case.batch, case.size, case.size, 3)
    return {
        "image": np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8),
        "label": numbers % case.num_classes,
        "epoch": np.zeros_like(numbers),
        "example": numbers,
    }


def train(case: Case) -> Contender:
    """The training step of a run, on one batch that stays on the devices."""
    runtime.tune_host_runtime()  # as main.py does
    config, mesh = config_of(case), sharding.make_mesh()
    recipe = build(config, case.num_classes, IMAGENET / case.batch)
    batch = next(sharding.to_devices(mesh, [synthetic_batch(case)]))
    compiled = TrainStep(recipe, mesh)
    outputs: Any = (compiled.pack(recipe.create_state(mesh)), None)

    def step() -> None:
        nonlocal outputs
        outputs = compiled(outputs[0], batch)

    group = config.model.batch_norm_group
    normalized = f"groups of {group}" if 0 < group < case.batch else "the batch"
    description = (
        f"augmentation {config.augmentation}, both heads with label smoothing, gradients, clipping,"
        f" weight decay, RMSProp, running averages; batch norm over {normalized}"
    )
    return Contender(step, lambda: jax.block_until_ready(outputs), description, device_bytes)


def infer(case: Case) -> Contender:
    """The predictor, which folds batch normalization, on uint8 images on the devices."""
    runtime.tune_host_runtime()
    config, mesh = config_of(case), sharding.make_mesh()
    model = make_model(config, case.num_classes)
    predict = Predictor(
        model,
        jax.device_put(random_variables(model, case.size), sharding.replicated(mesh)),
        preprocessing(config),
        batch_size=case.batch,
        mesh=mesh,
    )
    images = next(sharding.to_devices(mesh, [synthetic_batch(case)]))["image"]
    description = "uint8 to logits by inception.Predictor, batch norm folded"
    return Contender(*repeated(lambda: predict.on_devices(images)), description, device_bytes)


def random_variables(model: nn.Module, size: int) -> dict[str, Any]:
    """Variables that keep activations near 1, made without compiling an initialization.

    Kernels are normal with variance 2 / fan-in (He et al.), variances and scales near 1, means and
    offsets near 0.
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
    """`step` and `wait` of a `Contender` that repeats a call."""
    outputs: Any = None

    def step() -> None:
        nonlocal outputs
        outputs = call()

    return step, lambda: jax.block_until_ready(outputs)


def device_bytes() -> int | None:
    """Peak memory of the first device; None on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
