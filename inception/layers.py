"""The convolution of the paper, spelled once, and the pools.

Every convolution of the network is convolution -> batch normalization -> ReLU, without a bias. For
inference the normalization can be folded into the convolution (`fold_batch_norm`).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalization over groups of images, the paper's "replicas".

    A batch of N images is N / group batches of `group` images, each normalized by its own mean and
    variance, as 50 replicas with 32 images each would do. Groups are consecutive images, so the
    result does not depend on the number of devices. The running averages take the mean over the
    groups. Statistics are float32 whatever the compute dtype.

    Attributes:
      decay: of the running averages.
      epsilon: added to the variance.
      scale: whether there is a learned scale (torchvision, timm) or only an offset (the paper).
      group: images normalized together; 0 means the whole batch. A batch smaller than a group is
        one group.
      train: normalize by the batch and update the running averages, or normalize by them.
      dtype: of the result.

    Raises:
      ValueError: when training and the batch is larger than a group but not a multiple of it.
    """

    decay: float = 0.9997
    epsilon: float = 1e-3
    scale: bool = False
    group: int = 32
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes `x` [batch, height, width, channels]."""
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, channels) if self.scale else 1.0
        if not self.train or self.is_initializing():
            return self._normalize(x, running_mean.value, running_var.value, scale, bias)

        groups = x.reshape(-1, self._group_size(x.shape[0]), *x.shape[1:])
        values = groups.astype(jnp.float32)
        mean = values.mean(axis=(1, 2, 3))  # [groups, channels]
        deviations = values - mean[:, None, None, None]
        var = jnp.square(deviations).mean(axis=(1, 2, 3))
        running_mean.value = self._average(running_mean.value, mean)
        running_var.value = self._average(running_var.value, var)
        mean, var = (statistic[:, None, None, None] for statistic in (mean, var))
        return self._normalize(groups, mean, var, scale, bias).reshape(x.shape)

    def _group_size(self, batch: int) -> int:
        group = min(self.group or batch, batch)
        if batch % group:
            raise ValueError(
                f"a batch of {batch} images cannot be normalized in groups of "
                f"batch_norm_group={group}: use a multiple of {group}, or 0 for the whole batch"
            )
        return group

    def _average(self, running: jax.Array, statistic: jax.Array) -> jax.Array:
        return self.decay * running + (1 - self.decay) * statistic.mean(axis=0)

    def _normalize(self, x, mean, var, scale, bias) -> jax.Array:
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x.astype(jnp.float32) * factor + (bias - mean * factor)).astype(self.dtype)


class ConvBN(nn.Module):
    """Convolution, batch normalization, ReLU.

    Attributes:
      features: output channels of the full-width network.
      kernel: (height, width) of the filter.
      stride: in both directions.
      padding: "SAME" keeps the grid, "VALID" adds no zeros.
      relu: False leaves the unit linear (section 3.1, figure 2).
      stddev: of the truncated normal that the filter starts from (released code: 0.1).
      batch_norm: makes the normalization; None puts a bias in its place, as in a side head whose
        fully connected layer is not batch normalized, or where it is folded into the filter.
      width_multiplier: of `features`, rounded down but not below 16 (slim's depth_multiplier).
      dtype: of the computation; parameters stay float32.
    """

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"
    relu: bool = True
    stddev: float = 0.1
    batch_norm: Callable[..., nn.Module] | None = BatchNorm
    width_multiplier: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        x = nn.Conv(
            max(int(self.features * self.width_multiplier), 16),
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            use_bias=self.batch_norm is None,
            kernel_init=nn.initializers.truncated_normal(self.stddev),
            dtype=self.dtype,
            name="conv",
        )(x)
        if self.batch_norm is not None:
            x = self.batch_norm(name="bn")(x)
        return nn.relu(x) if self.relu else x


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


class Pool(nn.Module):
    """A pool as a stage of its own, so that it has a name.

    Attributes:
      pool: what it computes, such as `max_pool`.
    """

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] as `pool` does."""
        return self.pool(x)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 maximum with stride 2 and no padding, between and before the stages.

    Maps [batch, height, width, channels] to about half the height and width.
    """
    return nn.max_pool(x, (3, 3), strides=(2, 2))


def max_pool_same(x: jax.Array) -> jax.Array:
    """3x3 maximum of [batch, height, width, channels] with stride 1; keeps the grid."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def avg_pool_same(x: jax.Array, counts_padding: bool = False) -> jax.Array:
    """3x3 average of [batch, height, width, channels] with stride 1; keeps the grid.

    Args:
      x: the input.
      counts_padding: divide by 9 also at the border (torchvision, timm), or by the number of pixels
        that are there (TensorFlow, the released code).
    """
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=counts_padding)
