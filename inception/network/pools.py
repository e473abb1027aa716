"""The pools that keep the grid, and the name of a pool that is a stage."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from inception.ops.precision import at_least_float32


@dataclass(frozen=True)
class AvgPool:
    """3x3 average with stride 1; keeps the grid.

    Attributes:
      count_include_pad: Divide by 9 at the border too (torchvision, timm), or by the number of
        pixels inside the image (TensorFlow, the released code).
    """

    count_include_pad: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """Averages [batch, height, width, channels]."""
        if self.count_include_pad:
            return avg_pool(x, (3, 3), padding="SAME")
        total = nn.pool(x, 0.0, lax.add, (3, 3), None, "SAME")
        wide = at_least_float32(total)
        # Not Flax's: its numbers of pixels are float64 with JAX_ENABLE_X64.
        ones = jnp.ones((1, *x.shape[1:3], 1), wide.dtype)
        return (wide / nn.pool(ones, 0.0, lax.add, (3, 3), None, "SAME")).astype(x.dtype)


def avg_pool(
    x: jax.Array,
    window: tuple[int, int],
    strides: tuple[int, int] | None = None,
    padding: str = "VALID",
) -> jax.Array:
    """The average of [batch, height, width, channels] over windows; the padding counts.

    Flax's divides by an integer array, which jax_numpy_dtype_promotion=strict refuses.
    """
    return nn.pool(x, 0.0, lax.add, window, strides, padding) / math.prod(window)


def max_pool_same(x: jax.Array) -> jax.Array:
    """3x3 maximum of [batch, height, width, channels] with stride 1; keeps the grid."""
    return nn.max_pool(x, (3, 3), padding="SAME")


class Pool(nn.Module):
    """A pool as a stage of its own, so that it has a name.

    Attributes:
      pool: The function, such as `max_pool`.
    """

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] as `pool` does."""
        return self.pool(x)
