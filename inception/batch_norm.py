"""Batch normalization over groups of images, and its gradient, in as few passes as there can be.

Normalization is bound by memory, so what counts is how often an activation is read. Forward: its
sum and sum of squares in one pass, then a multiply-add with the ReLU behind it. Backward: the two
sums of the gradient in one pass, then the input's gradient in another; the ReLU's mask is computed
again from the input, so that the output need not be kept for it.

Without a learned scale, normalization and ReLU keep the order of a channel's values. A maximum pool
behind them can then be taken of their input, and the output be normalized where it is the maximum.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from inception.platforms import GPU, barrier, choose

MaxPool = Callable[[jax.Array], jax.Array]


class BatchNorm(nn.Module):
    """Batch normalization over groups of images, the paper's "replicas", and a ReLU behind it.

    A batch of N images is N / group batches of `group` images, each normalized by its own mean and
    variance, as 50 replicas with 32 images each would do. Groups are consecutive images, so the
    result does not depend on the number of devices. The running averages take the mean over the
    groups. The result has the input's type; statistics are float32, or float64 for such an input.

    Attributes:
      decay: of the running averages.
      epsilon: added to the variance.
      scale: whether there is a learned scale (torchvision, timm) or only an offset (the paper).
      group: images normalized together; 0 means the whole batch. A batch smaller than a group is
        one group.
      train: normalize by the batch and update the running averages, or normalize by them.
      relu: whether a ReLU follows.

    Raises:
      ValueError: when training and the batch is larger than a group but not a multiple of it.
    """

    decay: float = 0.9997
    epsilon: float = 1e-3
    scale: bool = False
    group: int = 32
    train: bool = False
    relu: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes `x` [batch, height, width, channels]."""
        return normalize_together(x, [self], [x.shape[-1]])[0]

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array, nn.Variable, nn.Variable]:
        """Scale and bias, running mean and running variance, each float32 [channels]."""
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        ones = nn.initializers.ones
        scale = self.param("scale", ones, (channels,)) if self.scale else jnp.ones(channels)
        return scale, bias, running_mean, running_var

    def groups(self, x: jax.Array) -> jax.Array:
        """Shapes `x` [batch, ...] to [groups, group, ...]."""
        batch = x.shape[0]
        group = min(self.group or batch, batch)
        if batch % group:
            raise ValueError(
                f"a batch of {batch} images cannot be normalized in groups of "
                f"batch_norm_group={group}: use a multiple of {group}, or 0 for the whole batch"
            )
        return x.reshape(-1, group, *x.shape[1:])

    def average(self, running: nn.Variable, statistic: jax.Array) -> None:
        """Takes a batch's statistic into a running average."""
        running.value = self.decay * running.value + (1 - self.decay) * statistic


def normalize_together(
    x: jax.Array,
    norms: Sequence[BatchNorm],
    channels: Sequence[int],
    pools: Sequence[MaxPool | None] = (None,),
) -> list[jax.Array]:
    """Batch normalizations of channels that lie side by side, as one.

    Args:
      x: [batch, height, width, the sum of `channels`].
      norms: with equal attributes, for the first of the channels and those that follow.
      channels: how many each of them normalizes.
      pools: of what is normalized; None for all of it.

    Returns:
      What is normalized, for each of `pools`.
    """
    first = norms[0]
    each = [norm.weights(count) for norm, count in zip(norms, channels, strict=True)]
    scales, biases, means, variances = zip(*each, strict=True)
    scale, bias = jnp.concatenate(scales), jnp.concatenate(biases)
    # Without a scale, normalization keeps the order of values, and a maximum may come before it.
    early = [None if first.scale else pool for pool in pools]
    late = [pool if first.scale else None for pool in pools]
    if not first.train or first.is_initializing():
        mean, var = (
            jnp.concatenate([running.value for running in all_of_them])
            for all_of_them in (means, variances)
        )
        factor, offset = _factor_and_offset(mean, lax.rsqrt(var + first.epsilon), scale, bias)
        ys = [_affine(_pooled(pool, x), factor, offset, first.relu) for pool in early]
        return [_pooled(pool, y.astype(x.dtype)) for pool, y in zip(late, ys, strict=True)]

    arguments = (first.groups(x), scale, bias, first.epsilon, first.relu)
    results = [normalize(*arguments, pool) for pool in early]
    _, mean, var = results[0]
    # One mean over both, so that training on several devices reduces one array for them.
    statistics = jnp.stack([mean, var]).mean(axis=1)
    parts = jnp.split(statistics, list(accumulate(channels[:-1])), axis=-1)
    for norm, running_mean, running_var, part in zip(norms, means, variances, parts, strict=True):
        norm.average(running_mean, part[0])
        norm.average(running_var, part[1])
    ys = [y.reshape(x.shape[0], *y.shape[2:]) for y, _, _ in results]
    return [_pooled(pool, y) for pool, y in zip(late, ys, strict=True)]


def _pooled(pool: MaxPool | None, x: jax.Array) -> jax.Array:
    """Pools [..., height, width, channels]."""
    if pool is None:
        return x
    y = pool(x.reshape(-1, *x.shape[-3:]))
    return y.reshape(*x.shape[:-3], *y.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    relu: bool,
    pool: MaxPool | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each group by its own statistics.

    Args:
      x: [groups, group, height, width, channels].
      scale: float32 [channels].
      bias: float32 [channels].
      epsilon: added to the variance.
      relu: whether a ReLU follows.
      pool: a maximum of the result, which is taken of `x` instead; `scale` is positive then.

    Returns:
      The result like `x`, and float32 means and variances [groups, channels], which are for the
      running averages: no gradient passes through them.
    """
    return _forward(x, scale, bias, epsilon, relu, pool)[0]


def _forward(x, scale, bias, epsilon, relu, pool):
    count = x[0, ..., 0].size
    wide = at_least_float32(x)
    total, total_of_squares = _sums(wide, jnp.square(wide))
    mean = total / count
    var = jnp.maximum(total_of_squares / count - jnp.square(mean), 0)
    inverse_deviation = lax.rsqrt(var + epsilon)
    factor, offset = _factor_and_offset(mean, inverse_deviation, scale, bias)
    pooled, to_maximum = jax.vjp(partial(_pooled, pool), x)
    y = _affine(pooled, factor, offset, relu)
    kept = (x, pooled, to_maximum, mean, inverse_deviation, scale, bias)
    return (y.astype(x.dtype), mean, var), kept


def _backward(epsilon, relu, pool, kept, gradients):
    x, pooled, to_maximum, mean, inverse_deviation, scale, bias = kept
    gradient, _, _ = gradients
    factor, offset = _factor_and_offset(mean, inverse_deviation, scale, bias)

    def parts(x, gradient, mean, inverse_deviation, factor, offset):
        """The gradient behind the ReLU, and that times the normalized input."""
        gradient = at_least_float32(gradient)
        if relu:
            gradient = jnp.where(_affine(x, factor, offset, False) > 0, gradient, 0)
        return gradient, gradient * (x - _spread(mean)) * _spread(inverse_deviation)

    # A GPU would store the ReLU's mask in the forward pass, and the gradient behind it for its
    # second use, though all of it is computed from what is read anyway.
    statistics = barrier((mean, inverse_deviation, factor, offset), *GPU)
    # Also the gradients of bias and scale.
    total, total_of_products = _sums(*parts(pooled, gradient, *statistics))
    statistics, total = barrier((statistics, total), *GPU)
    gradient, _ = parts(pooled, gradient, *statistics)
    if pool:
        (gradient,) = to_maximum(gradient.astype(x.dtype))
    count = x[0, ..., 0].size
    slope = inverse_deviation * total_of_products / count
    through_statistics = _affine(x, slope, total / count - mean * slope, False)
    dx = _spread(factor) * (gradient - through_statistics)
    return dx.astype(x.dtype), total_of_products.sum(axis=0), total.sum(axis=0)


normalize.defvjp(_forward, _backward)


def at_least_float32(x: jax.Array) -> jax.Array:
    """The array in the precision of statistics: float64 stays, every smaller type is widened."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _factor_and_offset(mean, inverse_deviation, scale, bias):
    factor = scale * inverse_deviation
    return factor, bias - mean * factor


def _affine(x: jax.Array, factor: jax.Array, offset: jax.Array, relu: bool) -> jax.Array:
    """Returns x * factor + offset, one of each per channel, or per group and channel."""
    y = at_least_float32(x) * _spread(factor) + _spread(offset)
    return jnp.maximum(y, 0) if relu else y


def _spread(statistic: jax.Array) -> jax.Array:
    """Shapes [channels] or [groups, channels] to broadcast against what was normalized."""
    return statistic if statistic.ndim == 1 else statistic[:, None, None, None]


def _sums(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums over a group's images and pixels of two arrays, in one pass on every platform.

    On a CPU XLA adds up fast where the result still has many elements, so the images come first; a
    GPU needs both sums in one reduction to share a kernel; a TPU adds up while the convolution
    before it writes its output, if the sums stand alone.

    Args:
      first: float32 [groups, group, height, width, channels].
      second: likewise.

    Returns:
      Two float32 [groups, channels].
    """
    return choose(first, second, cpu=_images_first, cuda=_together, rocm=_together, default=_apart)


# Functions of the module, not closures: JAX traces each once for arrays of a shape.
def _together(*arrays: jax.Array, axes: tuple[int, ...] = (1, 2, 3)) -> tuple[jax.Array, ...]:
    return tuple(lax.reduce(arrays, (0.0, 0.0), _add, axes))


def _add(a: tuple, b: tuple) -> tuple:
    return a[0] + b[0], a[1] + b[1]


def _images_first(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(part.sum(axis=(1, 2)) for part in _together(*arrays, axes=(1,)))


def _apart(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(part.sum(axis=(1, 2, 3)) for part in arrays)
