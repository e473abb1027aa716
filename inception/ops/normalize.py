"""Normalization of groups of images by their own statistics, in as few passes as possible.

Normalization is bound by memory, so what counts is how often an activation is read. Forward: its
sum and sum of squares in one pass, then a multiply-add with the ReLU after it. Backward: the two
sums of the gradient in one pass, then the input's gradient in another; the ReLU's mask is
recomputed from the input, so that the output need not be kept for it.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from inception.ops.platforms import GPU, barrier, by_platform, is_reference
from inception.ops.precision import at_least_float32

Pool = Callable[[jax.Array], jax.Array]
Normalized = tuple[jax.Array, jax.Array, jax.Array]


def reference(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, relu: bool, pool: Pool | None
) -> Normalized:
    """The formula, with the gradient that JAX derives."""
    wide = at_least_float32(x)
    mean, var = wide.mean((1, 2, 3), keepdims=True), wide.var((1, 2, 3), keepdims=True)
    y = (wide - mean) * lax.rsqrt(var + epsilon) * _broadcast(scale) + _broadcast(bias)
    y = pooled(pool, (jax.nn.relu(y) if relu else y).astype(x.dtype))
    mean, var = lax.stop_gradient((mean[:, 0, 0, 0], var[:, 0, 0, 0]))
    return y, mean, var


def normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    relu: bool,
    pool: Pool | None = None,
) -> Normalized:
    """Normalizes each group by its own statistics.

    Args:
      x: [groups, group, height, width, channels].
      scale: float32 [channels].
      bias: float32 [channels].
      epsilon: Added to the variance.
      relu: Whether a ReLU follows.
      pool: Maximum pool of the result. It is taken of `x` instead, which is the same where `scale`
        is positive.

    Returns:
      The result, of x's type, and float32 means and variances [groups, channels] for the running
      averages; no gradient passes through these.
    """
    if is_reference("normalize"):
        return reference(x, scale, bias, epsilon, relu, pool)
    return _normalize(x, scale, bias, epsilon, relu, pool)


def scale_and_shift(mean, inv_std, scale, bias) -> tuple[jax.Array, jax.Array]:
    """Normalization as `x * factor + offset`: the factor and the offset of each channel."""
    scale, bias = (jnp.broadcast_to(each, mean.shape) for each in (scale, bias))
    factor = scale * inv_std
    return factor, bias - mean * factor


def affine(x: jax.Array, factor: jax.Array, offset: jax.Array, relu: bool) -> jax.Array:
    """X * factor + offset in float32; factors per channel, or per group and channel."""
    y = at_least_float32(x) * _broadcast(factor) + _broadcast(offset)
    return jnp.maximum(y, 0) if relu else y


def pooled(pool: Pool | None, x: jax.Array) -> jax.Array:
    """Pools [..., height, width, channels], if there is a pool."""
    if pool is None:
        return x
    y = pool(x.reshape(-1, *x.shape[-3:]))
    return y.reshape(*x.shape[:-3], *y.shape[1:])


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(x, scale, bias, epsilon, relu, pool):
    return _forward(x, scale, bias, epsilon, relu, pool)[0]


def _forward(x, scale, bias, epsilon, relu, pool):
    count = x[0, ..., 0].size
    wide = at_least_float32(x)
    total, total_of_squares = _sums(wide, jnp.square(wide))
    mean = total / count
    var = jnp.maximum(total_of_squares / count - jnp.square(mean), 0)
    inv_std = lax.rsqrt(var + epsilon)
    factor, offset = scale_and_shift(mean, inv_std, scale, bias)
    maxima, to_maxima = jax.vjp(partial(pooled, pool), x)
    y = affine(maxima, factor, offset, relu)
    residuals = (x, maxima, to_maxima, mean, inv_std, scale, bias)
    return (y.astype(x.dtype), mean, var), residuals


def _backward(epsilon, relu, pool, residuals, gradients):
    x, maxima, to_maxima, mean, inv_std, scale, bias = residuals
    dy, _, _ = gradients
    factor, offset = scale_and_shift(mean, inv_std, scale, bias)

    def parts(x, dy, mean, inv_std, factor, offset):
        """The gradient of the ReLU's input, and that times the normalized input."""
        x, dy = at_least_float32(x), at_least_float32(dy)
        if relu:
            dy = jnp.where(affine(x, factor, offset, False) > 0, dy, 0)
        return dy, dy * (x - _broadcast(mean)) * _broadcast(inv_std)

    # A GPU would store the ReLU's mask in the forward pass, and the gradient after it for its
    # second use, though all of it is computed from what is read anyway.
    statistics = barrier((mean, inv_std, factor, offset), *GPU)
    # Also the gradients of bias and scale.
    total, total_of_products = _sums(*parts(maxima, dy, *statistics))
    statistics, total = barrier((statistics, total), *GPU)
    dy, _ = parts(maxima, dy, *statistics)
    if pool:
        (dy,) = to_maxima(dy.astype(x.dtype))
        dy = at_least_float32(dy)
    count = x[0, ..., 0].size
    slope = inv_std * total_of_products / count
    through_statistics = affine(x, slope, total / count - mean * slope, False)
    dx = _broadcast(factor) * (dy - through_statistics)
    return dx.astype(x.dtype), total_of_products.sum(axis=0), total.sum(axis=0)


_normalize.defvjp(_forward, _backward)


def _broadcast(statistic: jax.Array) -> jax.Array:
    """Shapes [channels] or [groups, channels] to broadcast against what is normalized."""
    if statistic.ndim == 1:
        return statistic[None, None, None]
    return statistic[:, None, None, None]


def _sums(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums over a group's images and pixels of two arrays, in one pass on every platform.

    XLA sums fast on a CPU where the result still has many elements, so the images come first; a
    GPU needs both sums in one reduction to share a kernel; a TPU adds up while the convolution
    before it writes its output, if each sum is a reduction of its own.

    Args:
      first: float32 [groups, group, height, width, channels].
      second: float32 array of the same shape.

    Returns:
      Two float32 [groups, channels].
    """
    return by_platform(
        first, second, cpu=_images_first, cuda=_together, rocm=_together, default=_apart
    )


# Functions of the module, not closures: JAX traces each once for arrays of a shape.
def _together(*arrays: jax.Array, axes: tuple[int, ...] = (1, 2, 3)) -> tuple[jax.Array, ...]:
    zero = jnp.zeros((), arrays[0].dtype)
    return tuple(lax.reduce(arrays, (zero, zero), _add, axes))


def _add(a: tuple, b: tuple) -> tuple:
    return a[0] + b[0], a[1] + b[1]


def _images_first(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(part.sum(axis=(1, 2)) for part in _together(*arrays, axes=(1,)))


def _apart(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(part.sum(axis=(1, 2, 3)) for part in arrays)
