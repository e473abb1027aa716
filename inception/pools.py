"""The pools of the network, and a gradient of the maximum that is cheap on every device."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from inception.platforms import choose


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


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """3x3 maximum with stride 2 and no padding, between and before the stages.

    Maps [batch, height, width, channels] to about half the height and width. As in TensorFlow and
    PyTorch, the gradient goes to the first of equal maxima, row by row (among NaNs it differs by
    platform). XLA's own gradient, select and scatter, does the same and is what a TPU is good at;
    elsewhere it is slow, and on a GPU not deterministic. A GPU remembers where the maxima were, in
    a byte each.
    """
    return choose(x, cpu=_columns_then_rows, default=_max_pool)


def _max_pool(x):
    return nn.max_pool(x, (3, 3), strides=(2, 2))


def _columns_then_rows(x):
    return _max_of_three(_max_of_three(x, axis=2), axis=1)


def _max_pool_forward(x):
    y = max_pool(x)
    return y, (x, _first_maximum(x, y))  # on each platform the one that is not used costs nothing


def _max_pool_backward(kept, gradient):
    return (choose(*kept, gradient, **_GRADIENTS),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _select_and_scatter(x: jax.Array, position: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient of `x`, XLA's own."""
    return jax.vjp(_max_pool, x)[1](gradient)[0]


def _rows_then_columns(x: jax.Array, position: jax.Array, gradient: jax.Array) -> jax.Array:
    """The same from the maxima of columns, which are computed again."""
    columns = _max_of_three(x, axis=2)
    y = _max_of_three(columns, axis=1)
    gradient = _to_first_maximum(columns, y, gradient, axis=1)
    return _to_first_maximum(x, columns, gradient, axis=2)


def _to_position(x: jax.Array, position: jax.Array, gradient: jax.Array) -> jax.Array:
    """The same from the positions: nine arrays that overlap, in one pass over a GPU's memory."""
    height, width = (2 * size - 1 for size in position.shape[1:3])  # with gaps between windows
    total = jnp.zeros(x.shape, jnp.float32)
    for number in range(9):
        row, column = divmod(number, 3)
        part = jnp.where(position == number, gradient, 0).astype(jnp.float32)
        rows = (row, x.shape[1] - height - row, 1)
        columns = (column, x.shape[2] - width - column, 1)
        total += lax.pad(part, jnp.float32(0), [(0, 0, 0), rows, columns, (0, 0, 0)])
    return total.astype(x.dtype)


_GRADIENTS = {"tpu": _select_and_scatter, "cpu": _rows_then_columns, "default": _to_position}


def _first_maximum(x: jax.Array, y: jax.Array) -> jax.Array:
    """Where in its window, row by row, each maximum `y` of `x` is: uint8, 0 to 8."""
    position = jnp.full(y.shape, 8, jnp.uint8)
    for number in reversed(range(8)):
        row, column = divmod(number, 3)
        element = _windows(_windows(x, 1)[row], 2)[column]
        position = jnp.where(element == y, jnp.uint8(number), position)
    return position


def _windows(x: jax.Array, axis: int) -> list[jax.Array]:
    """First, second and third element of each window of three, with stride 2 along `axis`."""
    count = (x.shape[axis] - 1) // 2
    return [lax.slice_in_dim(x, k, k + 2 * count - 1, 2, axis) for k in range(3)]


def _max_of_three(x: jax.Array, axis: int) -> jax.Array:
    first, second, third = _windows(x, axis)
    return jnp.maximum(jnp.maximum(first, second), third)


def _to_first_maximum(x: jax.Array, y: jax.Array, gradient: jax.Array, axis: int) -> jax.Array:
    """The gradient of `x`, given that of its windows' maxima `y`."""
    first, second, _ = _windows(x, axis)
    is_first = first == y
    is_second = (second == y) & ~is_first
    hits = is_first, is_second, ~(is_first | is_second)
    ends = [jnp.where(hit, gradient, 0) for hit in hits]
    # Windows share their ends: element 2i is the first of window i and the third of window i - 1.
    even = _pad(ends[0], axis, 0, 1) + _pad(ends[2], axis, 1, 0)
    odd = _pad(ends[1], axis, 0, 1)
    both = jnp.stack([even, odd], axis=axis + 1).reshape(
        *x.shape[:axis], 2 * even.shape[axis], *x.shape[axis + 1 :]
    )
    return _pad(both, axis, 0, x.shape[axis] - both.shape[axis])


def _pad(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
    """Adds zeros along `axis`; a negative number takes elements away."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (before, after, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


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
    if counts_padding:
        return avg_pool(x, (3, 3), padding="SAME")
    # Not Flax's: its numbers of pixels are float64 with JAX_ENABLE_X64.
    pixels = nn.pool(
        jnp.ones((1, *x.shape[1:3], 1), jnp.float32), 0.0, lax.add, (3, 3), None, "SAME"
    )
    total = nn.pool(x, 0.0, lax.add, (3, 3), None, "SAME")
    return (total.astype(jnp.float32) / pixels).astype(x.dtype)


def avg_pool(
    x: jax.Array,
    window: tuple[int, int],
    strides: tuple[int, int] | None = None,
    padding: str = "VALID",
) -> jax.Array:
    """The average of [batch, height, width, channels] over windows, padding counted.

    Flax's divides by an integer array, which jax_numpy_dtype_promotion=strict refuses.
    """
    return nn.pool(x, 0.0, lax.add, window, strides, padding) / math.prod(window)
