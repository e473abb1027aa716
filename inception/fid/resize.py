"""Other libraries' resizes as two small matrices, one for columns and one for rows.

Every resize here is separable and linear, so `rows @ image @ columns.T` computes it on any device,
within 1e-4 of 255 of the library itself. The matrices are made on the host once for each size. They
follow the library's own rounding of coordinates: a position that is off by one float32 rounding
moves a bilinear result by a hundred times as much.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from inception.fid.protocols import SIZE, Protocol

Weights = Callable[[int, int], np.ndarray]  # (size before, size after) -> [after, before]


def to_input(images: jax.Array, protocol: Protocol) -> jax.Array:
    """The network's input for images of one size.

    Args:
      images: uint8 [batch, height, width, 3].
      protocol: The resize and the scaling.

    Returns:
      float32 [batch, 299, 299, 3].
    """
    height, width = images.shape[1:3]
    rows = jnp.asarray(matrix(height, SIZE, protocol.resize))
    columns = jnp.asarray(matrix(width, SIZE, protocol.resize))
    return scale(resize(images, rows, columns), protocol)


def scale(pixels: jax.Array, protocol: Protocol) -> jax.Array:
    """Resized pixels to the network's input; both float32 [..., 3]."""
    pixels = jnp.clip(pixels, 0, 255) if protocol.clip else pixels
    return (pixels - protocol.center) / protocol.spread


def resize(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Multiplies images by matrices from `matrix`, first along the width, as Pillow does.

    Args:
      images: [batch, height, width, channels], of any type.
      rows: float32 [new height, height].
      columns: float32 [new width, width].

    Returns:
      float32 [batch, new height, new width, channels].
    """
    planes = jnp.moveaxis(images, 3, 1).astype(jnp.float32)  # so that both products are plain ones
    for axis, weights in (("bchw,ow->bcho", columns), ("bchw,oh->bcow", rows)):
        if not _is_identity(weights):
            planes = jnp.einsum(axis, planes, weights, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(planes, 1, 3)


def _is_identity(weights: jax.Array) -> bool:
    """Whether a matrix is known, when traced, to keep the size; every library then copies."""
    return weights.shape[0] == weights.shape[1]


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
