"""The 3x3 maximum pool with stride 2, and a gradient that is cheap on every platform.

XLA's own gradient, select and scatter, suits a TPU. Elsewhere it is slow, and on a GPU not
deterministic: a CPU takes the maxima of columns, then of rows; a GPU remembers in a byte where each
maximum was.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from inception.ops.platforms import by_platform, is_reference
from inception.ops.precision import at_least_float32


def reference(x: jax.Array) -> jax.Array:
    """The pool, with XLA's gradient."""
    return nn.max_pool(x, (3, 3), strides=(2, 2))


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 maximum with stride 2 and no padding, between stages and inside the stem.

    As in TensorFlow and PyTorch, the gradient goes to the first of equal maxima, row by row (among
    NaNs it differs by platform).

    Args:
      x: [batch, height, width, channels].

    Returns:
      [batch, (height - 1) // 2, (width - 1) // 2, channels].
    """
    return reference(x) if is_reference("max_pool") else _max_pool(x)


@jax.custom_vjp
def _max_pool(x):
    return by_platform(x, cpu=_columns_then_rows, default=reference)


def _columns_then_rows(x):
    return _max_of_three(_max_of_three(x, axis=2), axis=1)


def _forward(x):
    y = _max_pool(x)
    return y, (x, _argmax(x, y))  # which of the two is unused on a platform costs nothing there


def _backward(residuals, dy):
    return (by_platform(*residuals, dy, **GRADIENTS),)


_max_pool.defvjp(_forward, _backward)


def _select_and_scatter(x: jax.Array, position: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient of `x`, by XLA."""
    return jax.vjp(reference, x)[1](dy)[0]


def _rows_then_columns(x: jax.Array, position: jax.Array, dy: jax.Array) -> jax.Array:
    """The same through the maxima of columns, which are recomputed."""
    columns = _max_of_three(x, axis=2)
    y = _max_of_three(columns, axis=1)
    return _to_first_maximum(x, columns, _to_first_maximum(columns, y, dy, axis=1), axis=2)


def _to_position(x: jax.Array, position: jax.Array, dy: jax.Array) -> jax.Array:
    """The same from the positions: nine arrays that overlap, in one pass over a GPU's memory."""
    height, width = (2 * size - 1 for size in position.shape[1:3])  # with gaps between windows
    total = at_least_float32(jnp.zeros_like(x))
    for number in range(9):
        row, column = divmod(number, 3)
        part = at_least_float32(jnp.where(position == number, dy, 0))
        rows = (row, x.shape[1] - height - row, 1)
        columns = (column, x.shape[2] - width - column, 1)
        total += lax.pad(part, jnp.zeros((), part.dtype), [(0, 0, 0), rows, columns, (0, 0, 0)])
    return total.astype(x.dtype)


GRADIENTS = {"tpu": _select_and_scatter, "cpu": _rows_then_columns, "default": _to_position}


def _argmax(x: jax.Array, y: jax.Array) -> jax.Array:
    """The position in its window, row by row, of each maximum `y` of `x`: uint8, 0 to 8."""
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


def _to_first_maximum(x: jax.Array, y: jax.Array, dy: jax.Array, axis: int) -> jax.Array:
    """The gradient of `x`, given that of its windows' maxima `y`."""
    first, second, _ = _windows(x, axis)
    is_first = first == y
    is_second = (second == y) & ~is_first
    hits = is_first, is_second, ~(is_first | is_second)
    ends = [jnp.where(hit, dy, 0) for hit in hits]
    # Windows share their ends: element 2i is the first of window i and the third of window i - 1.
    even = _pad(ends[0], axis, 0, 1) + _pad(ends[2], axis, 1, 0)
    odd = _pad(ends[1], axis, 0, 1)
    both = jnp.stack([even, odd], axis=axis + 1).reshape(
        *x.shape[:axis], 2 * even.shape[axis], *x.shape[axis + 1 :]
    )
    return _pad(both, axis, 0, x.shape[axis] - both.shape[axis])


def _pad(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
    """Adds zeros along `axis`; a negative number removes elements."""
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (before, after, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)
