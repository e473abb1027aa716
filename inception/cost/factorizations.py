"""What a factorization of a convolution saves (sections 3.1 and 3.2), recomputed by counting."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from inception.cost.counting import format_shape, trace

Kernel = tuple[int, int]  # height and width


class Factorization(NamedTuple):
    """A convolution and the sequence that replaces it, with as many filters in each layer.

    Attributes:
      kernel: Filter of the convolution.
      factors: Filters of the sequence, from the input up.
      where: Section and figure of the paper.
      reported: Saving that the paper states, percent; NaN if it states none.
    """

    kernel: Kernel
    factors: tuple[Kernel, ...]
    where: str
    reported: float = math.nan

    def __str__(self) -> str:
        """E.g. "5x5 as 3x3, 3x3"."""
        factors = ", ".join(format_shape(*kernel) for kernel in self.factors)
        return f"{format_shape(*self.kernel)} as {factors}"

    def saving(self, grid: int = 17, channels: int = 64) -> float:
        """Percentage of the convolution's multiply-adds that the sequence saves."""
        before, after = (
            multiply_adds(kernels, grid, channels) for kernels in ([self.kernel], self.factors)
        )
        return 100 * (1 - after / before)


FACTORIZATIONS = (
    Factorization((5, 5), ((3, 3), (3, 3)), "section 3.1, figure 1", 28),
    Factorization((3, 3), ((2, 2), (2, 2)), "section 3.2", 11),
    Factorization((3, 3), ((3, 1), (1, 3)), "section 3.2, figure 3", 33),
    Factorization((7, 7), ((1, 7), (7, 1)), "section 3.2, figure 6"),
    Factorization((7, 7), ((3, 3), (3, 3), (3, 3)), "section 4, table 3"),
)


def multiply_adds(kernels: Sequence[Kernel], grid: int, channels: int) -> int:
    """Multiply-adds of padded convolutions in sequence, on one image [grid, grid, channels]."""
    network = nn.Sequential([nn.Conv(channels, kernel, use_bias=False) for kernel in kernels])
    image = jax.ShapeDtypeStruct((1, grid, grid, channels), jnp.float32)
    layers, _ = trace(network.init_with_output, jax.random.key(0), image)
    return sum(layer.multiply_adds for layer in layers)
