"""The convolution of the paper, spelled once.

Every convolution of the network is convolution -> batch normalization -> ReLU, without a bias. For
inference the normalization can be folded into the convolution (`fold_batch_norm`). Convolutions
side by side on one input are computed as one (`siblings`), with names and weights of their own.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from inception.batch_norm import BatchNorm, normalize_together
from inception.convolution import convolve, pack
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
    def __call__(self, inputs: int) -> tuple[jax.Array, jax.Array | None]:
        """The float32 kernel [height, width, inputs, features], and the bias [features] if any."""
        shape = (*self.kernel, inputs, self.features)
        kernel = self.param("kernel", _truncated_normal(self.stddev), shape)
        if not self.bias:
            return kernel, None
        zeros = nn.initializers.zeros
        return kernel, self.param("bias", zeros, (self.features,), jnp.float32)


@cache
def _truncated_normal(stddev: float) -> Callable[..., jax.Array]:
    """The initializer, traced once for each shape: whenever it is used, Flax asks it for shapes."""
    return jax.jit(nn.initializers.truncated_normal(stddev, jnp.float32), static_argnums=(1, 2))


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

    @property
    def width(self) -> int:
        """Output channels of this network."""
        return max(int(self.features * self.width_multiplier), 16)

    def setup(self) -> None:
        """Declares the weights under the names that checkpoints have."""
        self.conv = Filter(self.width, self.kernel, self.stddev, self.batch_norm is None)
        if self.batch_norm is not None:
            self.bn = self.batch_norm(relu=self.relu)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        return self._outputs(x, None)[0]

    def with_max_pool(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The output, and `max_pool` of it, which does not need the output.

        Normalization keeps the order of values in a channel, so the maximum can be taken before
        it, and the rest is done for a quarter of the pixels (see `batch_norm.py`).
        """
        output, pooled = self._outputs(x, None, max_pool)
        return output, pooled

    def _outputs(self, x: jax.Array, *pools: Callable | None) -> list[jax.Array]:
        """Pools of the output, or all of it (None)."""
        x = self.pool(x) if self.pool else x
        kernel, bias = self.weights(x.shape[-1])
        if bias is not None:
            y = self.convolve(x, kernel) + bias.reshape(1, 1, 1, -1)
            y = nn.relu(y) if self.relu else y
            return [pool(y) if pool else y for pool in pools]
        norms: list[Any] = [self.bn]
        return normalize_together(self.convolve(x, kernel), norms, [self.width], pools)

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolves `x` with this stride and padding.

        A caller for whom "prepared" is mutable gets the kernel in that collection, as
        convolutions want it. Given the collection, `kernel` plays no part: what is prepared once
        serves many calls.
        """
        how: dict[str, Any] = {"stride": self.stride, "padding": self.padding}
        is_wanted = self.batch_norm is None and self.is_mutable_collection("prepared")
        if is_wanted and not self.is_initializing():
            self.put_variable("prepared", "kernel", pack(kernel, x.shape, **how))
        packed = self.has_variable("prepared", "kernel")
        kernel = self.get_variable("prepared", "kernel") if packed else kernel
        return convolve(x, kernel, packed=packed, **how)

    def weights(self, inputs: int) -> tuple[jax.Array, jax.Array | None]:
        """The kernel [height, width, inputs, features] and the bias, in the compute dtype."""
        kernel, bias = self.conv(inputs)
        return kernel.astype(self.dtype), None if bias is None else bias.astype(self.dtype)


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
    in_order = [conv for group in groups.values() for conv in group]
    kernels, biases = zip(*(conv.weights(x.shape[-1]) for conv in in_order), strict=True)
    bias_of = {conv.name: bias for conv, bias in zip(in_order, biases, strict=True)}
    y = in_order[0].convolve(x, jnp.concatenate(kernels, axis=-1))
    outputs: dict[str | None, jax.Array] = {}
    for (pool, relu), group in groups.items():
        ends = list(accumulate(conv.width for conv in group))
        part, y = jnp.split(y, [ends[-1]], axis=-1)
        part = pool(part) if pool else part
        if group[0].batch_norm is None:
            part += jnp.concatenate([bias_of[conv.name] for conv in group]).reshape(1, 1, 1, -1)
            part = nn.relu(part) if relu else part
        else:
            norms: list[Any] = [conv.bn for conv in group]
            (part,) = normalize_together(part, norms, [conv.width for conv in group])
        names = (conv.name for conv in group)
        outputs |= zip(names, jnp.split(part, ends[:-1], axis=-1), strict=True)
    return tuple(outputs[conv.name] if conv.name in outputs else conv(x) for conv in convs)


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
