"""The convolution of the paper, spelled once.

Every convolution of the network is convolution -> batch normalization -> ReLU, without a bias. For
inference the normalization can be folded into the convolution (`fold_batch_norm`). Convolutions
side by side on one input are computed as one (`siblings`), with names and weights of their own.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from inception.batch_norm import BatchNorm
from inception.pools import max_pool_same


class Filter(nn.Module):
    """The weights of a convolution.

    Attributes:
      features: output channels.
      kernel: (height, width).
      stddev: of the truncated normal that the kernel starts from.
      bias: whether there is one.
    """

    features: int
    kernel: tuple[int, int]
    stddev: float
    bias: bool

    @nn.compact
    def __call__(self, inputs: int) -> tuple[jax.Array, jax.Array | float]:
        """The float32 kernel [height, width, inputs, features], and the bias [features] or 0."""
        shape = (*self.kernel, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.truncated_normal(self.stddev), shape)
        zeros = nn.initializers.zeros
        return kernel, self.param("bias", zeros, (self.features,)) if self.bias else 0.0


class ConvBN(nn.Module):
    """Convolution, batch normalization, ReLU.

    Attributes:
      features: output channels of the full-width network.
      kernel: (height, width) of the filter.
      stride: in both directions.
      padding: "SAME" keeps the grid, "VALID" adds no zeros.
      relu: False leaves the unit linear (section 3.1, figure 2).
      stddev: of the truncated normal that the filter starts from (released code: 0.1).
      pool: before the convolution; keeps the grid.
      batch_norm: makes the normalization; None puts a bias in its place, as in a side head whose
        fully connected layer is not batch normalized, or where it is folded into the filter.
      merged: whether `siblings` may compute it together with others.
      width_multiplier: of `features`, rounded down but not below 16 (slim's depth_multiplier).
      dtype: of the computation; parameters stay float32.
    """

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"
    relu: bool = True
    stddev: float = 0.1
    pool: Callable[[jax.Array], jax.Array] | None = None
    batch_norm: Callable[..., nn.Module] | None = BatchNorm
    merged: bool = True
    width_multiplier: float = 1.0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Declares the weights under the names that checkpoints have."""
        features = max(int(self.features * self.width_multiplier), 16)
        self.conv = Filter(features, self.kernel, self.stddev, self.batch_norm is None)
        if self.batch_norm is not None:
            self.bn = self.batch_norm(relu=self.relu)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        x = self.pool(x) if self.pool else x
        kernel, bias = self.weights(x.shape[-1])
        return self.activate(_convolve(x, kernel, self.stride, self.padding), bias)

    def weights(self, inputs: int) -> tuple[jax.Array, jax.Array | float]:
        """The kernel [height, width, inputs, features] and the bias, in the compute dtype."""
        kernel, bias = self.conv(inputs)
        return kernel.astype(self.dtype), jnp.asarray(bias, self.dtype)

    def activate(self, x: jax.Array, bias: jax.Array | float) -> jax.Array:
        """What follows the convolution: batch normalization, or the bias, and the ReLU."""
        if self.batch_norm is not None:
            return self.bn(x)
        return nn.relu(x + bias) if self.relu else x + bias


def siblings(x: jax.Array, *convs: ConvBN) -> tuple[jax.Array, ...]:
    """The outputs of 1x1 convolutions of the same input, as `conv(x)` for each of them.

    They are computed as one, with the kernels side by side: `x` is read once and the gradient for
    it written once. An average pool before one of them comes behind it instead, where there are
    fewer channels: both are linear, and the pool's weights do not depend on the channel.

    Args:
      x: [batch, height, width, channels].
      *convs: with stride 1.
    """
    # A maximum is not linear.
    together = [conv for conv in convs if conv.merged and conv.pool is not max_pool_same]
    if not together:
        return tuple(conv(x) for conv in convs)
    kernels, biases = zip(*(conv.weights(x.shape[-1]) for conv in together), strict=True)
    y = _convolve(x, jnp.concatenate(kernels, axis=-1))
    ends = accumulate(kernel.shape[-1] for kernel in kernels[:-1])
    parts = zip(together, jnp.split(y, list(ends), axis=-1), biases, strict=True)
    outputs = {
        conv.name: conv.activate(conv.pool(part) if conv.pool else part, bias)
        for conv, part, bias in parts
    }
    return tuple(outputs[conv.name] if conv.name in outputs else conv(x) for conv in convs)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x.astype(kernel.dtype), kernel, (stride, stride), padding, dimension_numbers=order
    )


def fold_batch_norm(variables: dict, epsilon: float) -> dict:
    """The variables of the same network with every batch normalization inside its convolution.

    With the running statistics, normalization is a factor and an offset per channel: the factor
    goes into the kernel and the offset becomes the bias. Exact up to rounding.

    Args:
      variables: "params" and "batch_stats" of a network of `ConvBN`.
      epsilon: of its batch normalization.

    Returns:
      "params" for the network whose `ConvBN.batch_norm` is None.
    """

    def fold(params: dict, statistics: dict) -> dict:
        if "bn" not in params:
            return {
                name: fold(child, statistics.get(name, {})) if isinstance(child, dict) else child
                for name, child in params.items()
            }
        mean, var = statistics["bn"]["mean"], statistics["bn"]["var"]
        factor = params["bn"].get("scale", 1.0) * jax.lax.rsqrt(var + epsilon)
        kernel, bias = params["conv"]["kernel"] * factor, params["bn"]["bias"] - mean * factor
        return {"conv": {"kernel": kernel, "bias": bias}}

    return {"params": fold(variables["params"], variables["batch_stats"])}
