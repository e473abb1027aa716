"""Other libraries' resizes as weighted sums over a few pixels, along one axis and then the other.

Every resize here is separable and linear: along one axis a new pixel is a weighted sum of some old
ones, its taps. The weights are computed on the host once for each size, and applied on any device
within 1e-4 of 255 of the library itself. They follow the library's own rounding of coordinates: a
position that is off by one float32 rounding moves a bilinear result by a hundred times as much.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from inception.fid.bridge import by_platform
from inception.fid.protocols import SIZE, Protocol

Weights = Callable[[int, int], np.ndarray]  # (size before, size after) -> [after, before]


class Taps(NamedTuple):
    """Which old pixels make up each new one along an axis.

    Attributes:
      positions: Indices of old pixels, int32 [new size, taps].
      weights: Their weights, float32 [new size, taps]; 0 for a tap that is not needed.
    """

    positions: jax.Array | np.ndarray
    weights: jax.Array | np.ndarray


def to_input(images: jax.Array, protocol: Protocol) -> jax.Array:
    """The network's input for images of one size.

    Args:
      images: uint8 [batch, height, width, 3].
      protocol: The resize and the scaling.

    Returns:
      float32 [batch, 299, 299, 3].
    """
    rows, columns = (taps(side, SIZE, protocol.resize) for side in images.shape[1:3])
    return scale(resize(images, rows, columns), protocol)


def scale(pixels: jax.Array, protocol: Protocol) -> jax.Array:
    """Resized pixels to the network's input; both float32 [..., 3]."""
    pixels = jnp.clip(pixels, 0, 255) if protocol.clip else pixels
    return (pixels - protocol.center) / protocol.spread


def resize(images: jax.Array, rows: Taps, columns: Taps) -> jax.Array:
    """Resizes images.

    Args:
      images: [batch, height, width, channels], of any type.
      rows: Taps along the height, from `taps`.
      columns: Taps along the width.

    Returns:
      float32 [batch, new height, new width, channels].
    """
    # Gathering is slow on a TPU. Elsewhere a few taps are a tenth of the work of a matrix product.
    return by_platform(images, rows, columns, default=_by_sums, tpu=_by_products)


def _by_sums(images: jax.Array, rows: Taps, columns: Taps) -> jax.Array:
    """The height first, whose sums are of whole rows."""
    # Without the barrier each pixel of the first sum would be computed again for every tap.
    resized = jax.lax.optimization_barrier(_sum_along(1, images, rows))
    return _sum_along(2, resized, columns).astype(jnp.float32)


def _sum_along(side: int, images: jax.Array, along: Taps) -> jax.Array:
    if _is_identity(images.shape[side], along):
        return images
    positions, weights = map(jnp.asarray, along)
    shape = [len(weights) if each == side else 1 for each in range(images.ndim)]
    parts = [
        jnp.take(images, positions[:, tap], axis=side) * weights[:, tap].reshape(shape)
        for tap in range(weights.shape[1])
    ]
    return sum(parts[1:], start=parts[0])


def _by_products(images: jax.Array, rows: Taps, columns: Taps) -> jax.Array:
    """The width first, as Pillow does."""
    planes = jnp.moveaxis(images, 3, 1).astype(jnp.float32)  # so that both products are plain ones
    for axes, side, kept in (("bchw,ow->bcho", 3, columns), ("bchw,oh->bcow", 2, rows)):
        before = planes.shape[side]
        if not _is_identity(before, kept):
            weights = _dense(kept, before)
            planes = jnp.einsum(axes, planes, weights, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(planes, 1, 3)


def _dense(of: Taps, before: int) -> jax.Array:
    """The weights of all old pixels: [new size, before]."""
    is_there = of.positions[..., None] == jnp.arange(before)
    return jnp.where(is_there, of.weights[..., None], 0).sum(axis=1)


def _is_identity(before: int, axis: Taps) -> bool:
    """Whether an axis keeps its size, known when traced; every library then copies."""
    return before == len(axis.weights)


@lru_cache(maxsize=256)
def taps(before: int, after: int, kind: str) -> Taps:
    """The taps of a resize along one axis.

    Args:
      before: Number of old pixels.
      after: Number of new pixels.
      kind: A key of `KINDS`.

    Returns:
      Read-only arrays. The number of taps is a power of two, so that many sizes share a program.
    """
    weights = matrix(before, after, kind)
    most = int(np.count_nonzero(weights, axis=1).max())
    count = 1 << (most - 1).bit_length()
    # The pixels with a weight first, in their order; there may be fewer pixels than taps.
    weights = np.pad(weights, ((0, 0), (0, max(0, count - before))))
    positions = np.argsort(weights == 0, axis=1, kind="stable")[:, :count]
    found = np.take_along_axis(weights, positions, axis=1)
    positions = np.minimum(positions, before - 1).astype(np.int32)
    positions.flags.writeable = found.flags.writeable = False
    return Taps(positions, found)


@lru_cache(maxsize=256)
def matrix(before: int, after: int, kind: str) -> np.ndarray:
    """The weights of old pixels in new ones along one axis.

    Args:
      before: Number of pixels.
      after: Number of pixels after the resize.
      kind: A key of `KINDS`.

    Returns:
      float32 [after, before], not to be written to.
    """
    weights = np.eye(after) if before == after else KINDS[kind](before, after)
    weights = np.asarray(weights, np.float32)
    weights.flags.writeable = False
    return weights


def _between(positions: np.ndarray, before: int) -> np.ndarray:
    """Linear interpolation at float32 positions, between the pixel to the left and the next."""
    low = np.minimum(positions.astype(np.int64), before - 1)
    right = positions - low.astype(np.float32)
    weights = np.zeros((len(positions), before), np.float32)
    rows = np.arange(len(positions))
    weights[rows, low] = np.float32(1) - right
    weights[rows, np.minimum(low + 1, before - 1)] += right  # at the border both are one pixel
    return weights


def _torch_bilinear(before: int, after: int) -> np.ndarray:
    """torch.nn.functional.interpolate(mode="bilinear", align_corners=False)."""
    # PyTorch computes scale * (i + 0.5) - 0.5 with one rounding (a fused multiply-add).
    scale = float(np.float32(before) / np.float32(after))
    exact = scale * (np.arange(after) + 0.5) - 0.5
    return _between(np.maximum(exact.astype(np.float32), 0), before)


def _tensorflow_bilinear(before: int, after: int) -> np.ndarray:
    """tf.compat.v1.image.resize_bilinear: no half-pixel centers, no antialiasing."""
    scale = np.float32(before) / np.float32(after)
    return _between(np.arange(after, dtype=np.float32) * scale, before)


def _antialiased(kernel: Callable, support: float, dtype: type = np.float64) -> Weights:
    """A kernel that widens with the scale, as in Pillow and in torch with antialias=True."""

    def weights(before: int, after: int) -> np.ndarray:
        scale = dtype(before) / dtype(after)
        stretch = max(scale, dtype(1))
        reach = dtype(support) * stretch
        centers = (np.arange(after, dtype=dtype) + dtype(0.5)) * scale
        centers = centers[:, None]
        first = np.maximum((centers - reach + dtype(0.5)).astype(np.int64), 0)
        last = np.minimum((centers + reach + dtype(0.5)).astype(np.int64), before)
        pixels = np.arange(before)
        values = kernel((pixels.astype(dtype) - centers + dtype(0.5)) * (dtype(1) / stretch))
        values = np.where((first <= pixels) & (pixels < last), values, dtype(0))
        return values / values.sum(axis=1, keepdims=True)

    return weights


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """The cubic of a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0))


KINDS: dict[str, Weights] = {
    "torch_bilinear": _torch_bilinear,
    "torch_antialiased": _antialiased(_triangle, 1.0, np.float32),
    "tensorflow_bilinear": _tensorflow_bilinear,
    "pillow_bicubic": _antialiased(_cubic, 2.0),
}
