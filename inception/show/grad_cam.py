"""Grad-CAM (arXiv 1610.02391): where in an image a stage finds the evidence for a class.

The channels of a stage's output are summed with weights, each channel's mean gradient of the
class's logit; what speaks against the class, the negative part of the sum, is left out. For the
last stage, whose mean the logits are linear in, this is CAM (arXiv 1512.04150).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jax.typing import ArrayLike

from inception.data.augment import scale_pixels
from inception.data.preprocessing import Preprocessing
from inception.network.model import Inception

_OPACITY = 0.6  # of the map where it is 1
_COLORS = "inferno"


def grad_cam(
    model: Inception,
    variables: dict,
    images: ArrayLike,
    stages: Sequence[str],
    preprocessing: Preprocessing | None = None,
    classes: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """Maps of the evidence that each of some stages finds.

    Args:
      model: The network.
      variables: Its "params" and "batch_stats".
      images: uint8 [n, height, width, 3], cropped and resized already; any size of the network.
      stages: Names of stages, such as "Mixed_6e"; all together cost little more than one.
      preprocessing: Preprocessing whose scaling the weights were trained for.
      classes: A class for each image; None for the most probable one.

    Returns:
      By stage, float32 [n, height, width] of its grid, with 1 as the largest value of each map; 0
      everywhere where nothing speaks for the class.

    Raises:
      ValueError: For an unknown stage.
    """
    if unknown := [stage for stage in stages if stage not in model.stages()]:
        raise ValueError(f"stage {unknown[0]!r} is unknown; the network has {model.stages()}")
    scaling = preprocessing or Preprocessing()
    inputs = scale_pixels(images, scaling.mean, scaling.std)
    chosen = np.full(len(inputs), -1) if classes is None else np.asarray(classes)
    # Computed as drawn: fused, a stage has no output of its own to take the gradient at.
    model = model.clone(fuse=False)
    maps = _maps(variables, inputs, chosen, model=model, stages=tuple(stages))
    return {stage: np.array(maps[stage]) for stage in stages}


def overlay(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """A map on top of its image.

    Args:
      image: uint8 [height, width, 3].
      heatmap: A map of `grad_cam`, [grid height, grid width].

    Returns:
      float [height, width, 3] in [0, 1].
    """
    height, width = image.shape[:2]
    large = cv2.resize(np.asarray(heatmap, np.float32), (width, height))
    opacity = _OPACITY * large[..., None]
    return (1 - opacity) * image / 255 + opacity * mpl.colormaps[_COLORS](large)[..., :3]


@partial(jax.jit, static_argnames=("model", "stages"))
def _maps(
    variables: dict,
    inputs: jax.Array,
    classes: jax.Array,  # -1: the most probable one
    *,
    model: Inception,
    stages: tuple[str, ...],
) -> dict[str, jax.Array]:
    def score(changes: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Sum of the chosen logits, when stages' outputs change; and these outputs."""

        def change(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            output, path = call(*args, **kwargs), context.module.path
            is_stage = len(path) == 1 and context.method_name == "__call__"
            return output + changes[path[0]] if is_stage and path[0] in changes else output

        with nn.intercept_methods(change):
            logits, endpoints = model.apply(variables, inputs, train=False)
        best = jax.lax.argmax(logits, logits.ndim - 1, classes.dtype)
        rows = jnp.where(classes < 0, best, classes)
        chosen = jnp.take_along_axis(logits, rows[:, None], axis=-1)
        return chosen.sum(), {stage: endpoints[stage] for stage in stages}

    outputs = jax.eval_shape(score, {})[1]
    unchanged = jax.tree.map(lambda output: jnp.zeros(output.shape, output.dtype), outputs)
    gradients, outputs = jax.grad(score, has_aux=True)(unchanged)
    return jax.tree.map(_map, gradients, outputs)


def _map(gradient: jax.Array, output: jax.Array) -> jax.Array:
    """The map of a stage, from its output and the gradient there, [n, height, width, channels]."""
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    maps = nn.relu((weights * output).sum(axis=-1)).astype(jnp.float32)
    largest = maps.max(axis=(1, 2), keepdims=True)
    return maps / jnp.where(largest > 0, largest, 1)
