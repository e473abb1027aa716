"""Batch normalization over groups of images, the "replicas" of section 8."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from inception.ops.normalize import Pool, affine, normalize, pooled, scale_and_shift


class Coefficients(NamedTuple):
    """The parameters and running statistics of a normalization, each float32 [channels]."""

    scale: jax.Array
    bias: jax.Array
    mean: jax.Array  # running average
    var: jax.Array  # running average


class BatchNorm(nn.Module):
    """Batch normalization over groups of images, and the ReLU after it.

    A batch of N images is N / group batches of `group` images, each normalized by its own mean and
    variance, as 50 replicas with 32 images each would do. Groups are consecutive images, so the
    result does not depend on the number of devices. The running averages take the mean over the
    groups. The result has the input's type; statistics are always float32.

    Attributes:
      decay: Decay of the running averages.
      epsilon: Added to the variance.
      scale: Whether there is a learned scale (torchvision, timm) or only an offset (the paper).
      group: Number of images normalized together; 0 means the whole batch. A batch smaller than a
        group is one group.
      train: Normalize by the batch and update the running averages, or normalize by them.

    Raises:
      ValueError: When training, if the batch is larger than a group but not a multiple of it.
    """

    decay: float = 0.9997
    epsilon: float = 1e-3
    scale: bool = False
    group: int = 32
    train: bool = False

    def __call__(self, x: jax.Array, relu: bool = False) -> jax.Array:
        """Normalizes `x` [batch, height, width, channels]; with `relu` a ReLU follows."""
        y, statistics = self.with_coefficients(x, self.coefficients(x.shape[-1]), relu)
        self.update(statistics)
        return y

    @nn.compact
    def coefficients(self, channels: int) -> Coefficients:
        """Declares them, under the names that checkpoints have."""
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        ones = nn.initializers.ones
        scale = jnp.ones(channels, jnp.float32)
        scale = self.param("scale", ones, (channels,), jnp.float32) if self.scale else scale
        return Coefficients(scale, bias, mean.value, var.value)

    @nn.nowrap
    def with_coefficients(
        self, x: jax.Array, coefficients: Coefficients, relu: bool, pool: Pool | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Normalizes by given coefficients; `pool`, a maximum of the result, needs `scale=False`.

        Returns:
          The result [batch, height, width, channels], pooled if asked for, and in training the
          batch's statistics: mean and variance, float32 [2, channels].
        """
        scale, bias, mean, var = coefficients
        if not self.train or self.is_initializing():
            factor, offset = scale_and_shift(mean, lax.rsqrt(var + self.epsilon), scale, bias)
            return affine(pooled(pool, x), factor, offset, relu).astype(x.dtype), None
        y, mean, var = normalize(self._groups(x), scale, bias, self.epsilon, relu, pool)
        # One mean over both, so that training on several devices reduces one array for them.
        return y.reshape(x.shape[0], *y.shape[2:]), jnp.stack([mean, var]).mean(axis=1)

    def update(self, statistics: jax.Array | None) -> None:
        """Moves the running averages toward a batch's statistics, if there are any."""
        if statistics is None:
            return
        for name, statistic in zip(("mean", "var"), statistics, strict=True):
            running: jax.Array = self.get_variable("batch_stats", name)
            moved = self.decay * running + (1 - self.decay) * statistic
            self.put_variable("batch_stats", name, moved.astype(running.dtype))

    def _groups(self, x: jax.Array) -> jax.Array:
        """Shapes [batch, ...] to [groups, group, ...]."""
        batch = x.shape[0]
        group = min(self.group or batch, batch)
        if batch % group:
            raise ValueError(
                f"a batch of {batch} images cannot be normalized in groups of "
                f"batch_norm_group={group}: use a multiple of {group}, or 0 for the whole batch"
            )
        return x.reshape(-1, group, *x.shape[1:])
