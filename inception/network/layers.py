"""The convolution of the paper, and how layers are joined to branches, figures and a network."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from inception.network.batch_norm import BatchNorm
from inception.ops.convolution import conv

Layer = Callable[[jax.Array], jax.Array]  # a convolution or a pool
Branch = Sequence[Layer]  # from the input up, as a figure draws it


class Conv(nn.Module):
    """A convolution.

    Attributes:
      features: Number of output channels.
      kernel: (height, width) of the filter.
      stride: Stride in both directions.
      padding: "SAME" keeps the grid, "VALID" adds no zeros.
      stddev: Standard deviation of the truncated normal that the filter is initialized from.
      use_bias: Whether there is a bias.
      dtype: Type of the computation; parameters stay float32.
    """

    features: int
    kernel: tuple[int, int]
    stride: int
    padding: str
    stddev: float
    use_bias: bool
    dtype: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        kernel, bias = self.kernel_and_bias(x.shape[-1])
        y = conv(x, kernel, self.stride, self.padding)
        return y if bias is None else add_bias(y, bias)

    @nn.compact
    def kernel_and_bias(self, inputs: int) -> tuple[jax.Array, jax.Array | None]:
        """The kernel [height, width, inputs, features], and the bias [features] if there is one."""
        shape = (*self.kernel, inputs, self.features)
        kernel = self.param("kernel", _truncated_normal(self.stddev), shape).astype(self.dtype)
        if not self.use_bias:
            return kernel, None
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return kernel, bias.astype(self.dtype)


@cache
def _truncated_normal(stddev: float) -> Callable[..., jax.Array]:
    """The initializer, traced once for each shape: Flax asks it for shapes at every use."""
    return jax.jit(nn.initializers.truncated_normal(stddev, jnp.float32), static_argnums=(1, 2))


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds [features] to [batch, height, width, features]."""
    return y + bias.reshape(1, 1, 1, -1)


class ConvBN(nn.Module):
    """Convolution, batch normalization, ReLU, without a bias: every convolution of the paper.

    Attributes:
      features: Number of output channels of the full-width network.
      kernel: (height, width) of the filter.
      stride: Stride in both directions.
      padding: "SAME" keeps the grid, "VALID" adds no zeros.
      relu: False leaves the unit linear (section 3.1, figure 2).
      stddev: Standard deviation of the truncated normal that the filter is initialized from; 0.1 in
        the released code.
      norm: Makes the normalization; None puts a bias in its place, for an auxiliary head whose
        fully connected layer is not batch normalized, and where it is folded into the filter.
      width_multiplier: Factor of `features`, rounded down but not below 16 (slim's
        depth_multiplier).
      dtype: Type of the computation; parameters stay float32.
    """

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"
    relu: bool = True
    stddev: float = 0.1
    norm: Callable[..., nn.Module] | None = BatchNorm
    width_multiplier: float = 1.0
    dtype: Any = jnp.float32

    @property
    def width(self) -> int:
        """Number of output channels of this network."""
        return max(int(self.features * self.width_multiplier), 16)

    def setup(self) -> None:
        """Declares both, under the names that checkpoints have."""
        self.conv: Any = Conv(
            *(self.width, self.kernel, self.stride, self.padding, self.stddev),
            use_bias=self.norm is None,
            dtype=self.dtype,
        )
        self.bn: Any = self.norm() if self.norm else activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        return self.bn(self.conv(x), self.relu)  # the gradient of both is one: ops/normalize.py


def activation(x: jax.Array, relu: bool) -> jax.Array:
    """The ReLU alone: takes the place of `BatchNorm` where there is no normalization."""
    return nn.relu(x) if relu else x


def sequence(layers: Iterable[Layer], x: jax.Array) -> jax.Array:
    """The output of layers, one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def concat(x: jax.Array, *branches: Branch) -> jax.Array:
    """The filter concatenation on top of every figure: all branches read `x`."""
    return jnp.concatenate([sequence(branch, x) for branch in branches], axis=-1)


def run(
    stages: Sequence[nn.Module], x: jax.Array, frozen: Collection[str] = ()
) -> Iterator[tuple[str, jax.Array]]:
    """Yields the name and the output of every stage; no gradient passes the frozen ones."""
    for stage in stages:
        x = stage(x)
        if stage.name in frozen:
            x = jax.lax.stop_gradient(x)
        yield str(stage.name), x
