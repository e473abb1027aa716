"""The convolution of the paper, spelled once, and the pools.

Every convolution of the network is convolution -> batch normalization -> ReLU, without a bias.
Average pools do not count the padding, as in TensorFlow.
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
        fully connected layer is not batch normalized.
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


class MaxPool(nn.Module):
    """3x3 maximum with stride 2 and no padding, between and before the stages."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to about half the height and width."""
        return nn.max_pool(x, (3, 3), strides=(2, 2))


def avg_pool(x: jax.Array) -> jax.Array:
    """3x3 average of [batch, height, width, channels], stride 1; the padding is not counted."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
