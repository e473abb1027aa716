"""The pools that keep the grid, and the name of a pool that is a stage."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax


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
        y = nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=self.count_include_pad)
        return y.astype(x.dtype)  # the numbers of pixels are float32


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
