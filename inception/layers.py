"""The convolution of the paper, spelled once.

Every convolution of the network is convolution -> batch normalization -> ReLU, without a bias. For
inference the normalization can be folded into the convolution (`fold_batch_norm`). Convolutions
side by side on one input are computed as one (`siblings`), with names and weights of their own.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from inception.batch_norm import BatchNorm, normalize_together
from inception.pools import max_pool, max_pool_same


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
      as_drawn: whether `siblings` must compute it by itself.
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
    as_drawn: bool = False
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
        y, bias = self._convolved(x)
        return _activate(y, [self], [bias])[0]

    def with_max_pool(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The output, and `max_pool` of it, which does not need the output.

        What follows the convolution keeps the order of values in a channel, so the maximum can be
        taken before it, and the rest is done for a quarter of the pixels (see `batch_norm.py`).
        """
        y, bias = self._convolved(x)
        output, pooled = _activate(y, [self], [bias], (None, max_pool))
        return output, pooled

    def _convolved(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self.pool(x) if self.pool else x
        kernel, bias = self.weights(x.shape[-1])
        return _convolve(x, kernel, self.stride, self.padding), bias

    def weights(self, inputs: int) -> tuple[jax.Array, jax.Array]:
        """The kernel [height, width, inputs, features] and bias [features] in the compute dtype."""
        kernel, bias = self.conv(inputs)
        return kernel.astype(self.dtype), jnp.broadcast_to(bias, kernel.shape[-1:]).astype(
            self.dtype
        )


def siblings(x: jax.Array, *convs: ConvBN) -> tuple[jax.Array, ...]:
    """The outputs of 1x1 convolutions of the same input, as `conv(x)` for each of them.

    They are computed as one, with the kernels side by side: `x` is read once and the gradient for
    it written once. So are their batch normalizations. An average pool before one of them comes
    behind it instead, where there are fewer channels: both are linear, and the pool's weights do
    not depend on the channel.

    Args:
      x: [batch, height, width, channels].
      *convs: with stride 1, and equal but for features, pool and ReLU.
    """
    groups = defaultdict[tuple, list[ConvBN]](list)  # of those that go on alike
    for conv in convs:
        if not conv.as_drawn and conv.pool is not max_pool_same:  # a maximum is not linear
            groups[conv.pool, conv.relu].append(conv)
    if not groups:
        return tuple(conv(x) for conv in convs)
    weights = {conv.name: conv.weights(x.shape[-1]) for group in groups.values() for conv in group}
    y = _convolve(x, jnp.concatenate([kernel for kernel, _ in weights.values()], axis=-1))
    outputs: dict[str | None, jax.Array] = {}
    for (pool, _), group in groups.items():
        biases = [weights[conv.name][1] for conv in group]
        ends = list(accumulate(bias.size for bias in biases))
        part, y = jnp.split(y, [ends[-1]], axis=-1)
        (part,) = _activate(pool(part) if pool else part, group, biases)
        names = (conv.name for conv in group)
        outputs |= zip(names, jnp.split(part, ends[:-1], axis=-1), strict=True)
    return tuple(outputs[conv.name] if conv.name in outputs else conv(x) for conv in convs)


def _activate(
    x: jax.Array,
    convs: Sequence[ConvBN],
    biases: Sequence[jax.Array],
    pools: Sequence[Callable | None] = (None,),
) -> list[jax.Array]:
    """What follows convolutions whose outputs lie side by side: once as it is, or pooled."""
    if convs[0].batch_norm is not None:
        norms: list[Any] = [conv.bn for conv in convs]
        return normalize_together(x, norms, [bias.size for bias in biases], pools)
    bias = jnp.concatenate(biases)
    outputs = [(pool(x) if pool else x) + bias for pool in pools]
    return [nn.relu(output) if convs[0].relu else output for output in outputs]


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
