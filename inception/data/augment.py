"""Augmentation on the device: flip, color, scaling to [-1, 1]; and mixup.

The host crops and resizes (`inception.data.crops`) and sends uint8; the rest of the released code's
preprocessing (slim/preprocessing/inception_preprocessing.py) happens here, inside the jitted
training step. Each image has a key of its own for its random choices, so they depend, bit for bit,
on (seed, epoch, example) and nothing else: not on the batch, the device or the number of processes.
(Pixels may differ in the last bit between batch sizes, as XLA compiles each size separately.)

The color operations are those of tf.image on a CPU, where the released code ran them, also for
values outside [0, 1], which occur between operations. (dm-pix agrees inside [0, 1], but its hue
rotation turns pixels below 0 gray.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from inception.ops.platforms import GPU, TPU, barrier

BRIGHTNESS = (-32 / 255, 32 / 255)  # added to values in [0, 1]
SATURATION = (0.5, 1.5)
HUE = (-0.2, 0.2)  # of a full turn
CONTRAST = (0.5, 1.5)

_STREAM = 0xC0100125  # larger than any int32 step, so the seed's other keys do not collide
_TINY = jnp.finfo(jnp.float32).tiny

# Red, green and blue, one array each: so every color operation is elementwise, and the compiler
# fuses them into one pass.
Colors = Sequence[Array]


class Choices(NamedTuple):
    """What is drawn for each image: arrays [batch]."""

    flip: Array  # bool
    order: Array  # int32, 0 to 3: which of slim's four orders of the color operations
    brightness: Array
    saturation: Array
    hue: Array
    contrast: Array


def keys(seed: ArrayLike, epoch: ArrayLike, example: ArrayLike) -> Array:
    """Returns one key per image, [batch], from the run's seed and `epoch`, `example` int32 [batch].

    Threefry is named explicitly: under vmap JAX's other generators give other numbers, so an
    image's choices would depend on its batch.
    """
    fold_in = jax.random.fold_in
    root = fold_in(jax.random.key(seed, impl="threefry2x32"), _STREAM)
    key = jax.vmap(lambda epoch, example: fold_in(fold_in(root, epoch), example))
    return key(jnp.asarray(epoch), jnp.asarray(example))


def augment(
    keys: Array,
    images: ArrayLike,
    augmentation: str,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> Array:
    """Augments a training batch as the released code does after cropping.

    Args:
      keys: One key per image, [batch], from `keys`.
      images: uint8 [batch, height, width, 3].
      augmentation: "inception": flip and the four color operations; "inception_fast": flip,
          brightness and saturation (slim's fast_mode); "resnet" and "flip": flip only (they
          differ in the crops); "affine" and "none": scaling only.
      mean: Mean of red, green and blue in [0, 1]; the result is (augmented - mean) / std.
      std: Standard deviation of red, green and blue.

    Returns:
      float32 [batch, height, width, 3]; in [-1, 1] with the defaults.

    Raises:
      ValueError: For images or keys of another shape or type.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or keys.shape != images.shape[:1]:
        raise ValueError(
            f"images {images.shape} with keys {keys.shape}: expected [batch, height, width, 3] "
            "and one key per image"
        )
    choices = draw(keys)
    if augmentation not in ("affine", "none"):
        images = jnp.where(_per_image(choices.flip)[..., None], images[:, :, ::-1], images)
    if augmentation == "inception":
        return _scale(distort_color(_uint8(images), choices), mean, std)
    if augmentation == "inception_fast":
        return _scale(distort_color_fast(_uint8(images), choices), mean, std)
    return scale_pixels(images, mean, std)


def _scale(colors: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Scales colors in [0, 1] to (colors - mean) / std."""
    if tuple(mean) == tuple(std) == (0.5, 0.5, 0.5):
        return 2 * colors - 1
    center, scale = (np.asarray(each, np.float32).reshape(1, 1, 1, 3) for each in (mean, std))
    return (colors - center) / scale


def scale_pixels(
    images: ArrayLike,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> Array:
    """Scales uint8 [..., height, width, 3] to float32, (x / 255 - mean) / std in each channel.

    This is the device's half of a Preprocessing; the defaults scale to [-1, 1].
    """
    # In this form 0 and 255 become exactly -1 and 1, however the compiler rounds.
    images = _uint8(images)
    shape = (1,) * (images.ndim - 1) + (3,)
    center, scale = (
        np.multiply(255, each).astype(np.float32).reshape(shape) for each in (mean, std)
    )
    return (images.astype(jnp.float32) - center) / scale


def draw(keys: Array) -> Choices:
    """Draws what `augment` does to each image: uniform within the ranges above, flip with 1/2."""
    u = jax.vmap(lambda key: jax.random.uniform(key, (6,), jnp.float32))(keys)
    ranges = (BRIGHTNESS, SATURATION, HUE, CONTRAST)
    values = [low + (high - low) * u[:, 2 + i] for i, (low, high) in enumerate(ranges)]
    return Choices(u[:, 0] < 0.5, (4 * u[:, 1]).astype(jnp.int32), *values)


def distort_color(images: Array, choices: Choices) -> Array:
    """Brightness, saturation, hue and contrast in one of slim's four orders, clipped to [0, 1].

    The orders are BSHC, SBCH, CHBS and HSCB. Brightness commutes with contrast (the mean shifts
    too) and with hue (which depends on differences only), and hue commutes with saturation (hue
    keeps a pixel's extremes, saturation its hue). So all four orders are the sequence below with
    some operations left out, and hue, the most expensive one, is computed once.

    Images are uint8 [batch, height, width, 3], or float32 in [0, 1].
    """
    _, order, brightness, saturation, hue, contrast = map(_per_image, choices)

    def to_first_contrast(images: Array) -> Colors:
        return adjust_saturation(_split(images), jnp.where(order == 1, saturation, 1))

    def to_second_contrast(images: Array, means: Colors) -> Colors:
        factor = jnp.where((order == 1) | (order == 2), contrast, 1)
        colors = adjust_contrast(to_first_contrast(images), factor, means)
        colors = _add(colors, jnp.where(order == 3, 0, brightness))
        colors = adjust_hue(colors, hue)
        return _where(order == 1, colors, adjust_saturation(colors, saturation))

    # Accelerators recompute the colors from the images once the means are known.
    images, first = barrier((images, _means(to_first_contrast(images))), *GPU, *TPU)
    images, second = barrier((images, _means(to_second_contrast(images, first))), *GPU, *TPU)
    colors = to_second_contrast(images, first)
    colors = adjust_contrast(colors, jnp.where((order == 0) | (order == 3), contrast, 1), second)
    return _join(_add(colors, jnp.where(order == 3, brightness, 0)))


def distort_color_fast(images: Array, choices: Choices) -> Array:
    """Brightness, then saturation; or, three times as often, the reverse (slim's fast_mode).

    slim draws one of four orders here too, of which the last three are the same. Images are those
    of `distort_color`.
    """
    _, order, brightness, saturation, _, _ = map(_per_image, choices)
    colors = adjust_saturation(_split(images), jnp.where(order == 0, 1, saturation))
    colors = _add(colors, brightness)
    return _join(_where(order == 0, adjust_saturation(colors, saturation), colors))


def adjust_contrast(colors: Colors, factor: Array | float, means: Colors | None = None) -> Colors:
    """Scales each channel about its mean over the image, as tf.image.adjust_contrast.

    Args:
      colors: float32 [batch, height, width] each; here and below.
      factor: A number, or [batch, 1, 1]; here and below.
      means: Means of the colors if they are known, [batch, 1, 1] each.
    """
    means = _means(colors) if means is None else means
    return [factor * (color - mean) + mean for color, mean in zip(colors, means, strict=True)]


def adjust_saturation(colors: Colors, factor: Array | float) -> Colors:
    """Scales HSV saturation up to 1, as tf.image.adjust_saturation; `factor` is at least 0.

    Saturation is (high - low) / high. Scaling it at a fixed hue and value moves each channel
    toward or away from the highest in proportion, so no conversion to HSV is needed.
    """
    high, low = _extremes(colors)
    inverse_saturation = high / jnp.maximum(high - low, _TINY)
    factor = jnp.clip(inverse_saturation, 0, factor)
    return [high - (high - color) * factor for color in colors]


def adjust_hue(colors: Colors, turns: Array | float) -> Colors:
    """Rotates HSV hue by `turns` of the color circle, as tf.image.adjust_hue.

    A pixel keeps its lowest and highest value, and each channel is between the two at a height
    that is a trapezoid of the hue: 1 within a sextant of the channel's own hue, 0 beyond two.
    """
    red, green, blue = colors
    high, low = _extremes(colors)
    spread = high - low
    hue = jnp.where(
        red == high,
        green - blue,
        jnp.where(green == high, blue - red + 2 * spread, red - green + 4 * spread),
    )
    sextants = hue / jnp.maximum(spread, _TINY) + 6 * turns  # from pure red
    from_opposite = [jnp.mod(sextants + shift, 6) - 3 for shift in (0, 4, 2)]
    return [low + spread * jnp.clip(jnp.abs(each) - 1, 0, 1) for each in from_opposite]


def _split(images: Array) -> Colors:
    """The colors of images: uint8 is scaled to [0, 1], float32 is kept."""
    scale = 255 if images.dtype == jnp.uint8 else 1
    return [images[..., channel].astype(jnp.float32) / scale for channel in range(3)]


def _join(colors: Colors) -> Array:
    return jnp.stack([jnp.clip(color, 0, 1) for color in colors], axis=-1)


def _where(condition: Array, colors: Colors, others: Colors) -> Colors:
    return [jnp.where(condition, *both) for both in zip(colors, others, strict=True)]


def _add(colors: Colors, brightness: Array) -> Colors:
    return [color + brightness for color in colors]


def _means(colors: Colors) -> Colors:
    """Means over the image, in one reduction, so that a TPU does not store the colors for it."""
    add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))  # noqa: E731
    rows = lax.reduce(tuple(colors), (jnp.float32(0),) * len(colors), add, (2,))
    return [_per_image(row.sum(axis=1)) / colors[0][0].size for row in rows]


def _extremes(colors: Colors) -> tuple[Array, Array]:
    """Each pixel's highest and lowest color."""
    red, green, blue = colors
    high = jnp.maximum(jnp.maximum(red, green), blue)
    return high, jnp.minimum(jnp.minimum(red, green), blue)


def mixup(key: Array, images: Array, labels: Array, alpha: float) -> tuple[Array, Array]:
    """Mixes each image and its label with a partner's (Zhang et al., arXiv 1710.09412).

    One weight w per batch, from Beta(alpha, alpha), as in the Gluon recipe
    (gluon-cv/scripts/classification/imagenet/train_imagenet.py). There the partners are a device's
    images in reverse; here they are neighbors, 0 with 1, 2 with 3. In shuffled batches both give
    random pairs, used twice, with w and 1 - w; but neighbors always share a device and a batch
    normalization group, so nothing is communicated.

    Args:
      key: One key for the batch.
      images: float [batch, height, width, 3], already augmented; batch is even.
      labels: float [batch, classes], one-hot or smoothed.
      alpha: Parameter of the distribution, above 0; a smaller one mixes less.

    Raises:
      ValueError: For an odd batch, or labels that are not one row per image.
    """
    batch = images.shape[0]
    if batch % 2 or labels.ndim != 2 or len(labels) != batch:
        raise ValueError(
            f"mixup of a batch of {batch} with labels {labels.shape}: expected an even batch, and "
            "labels [batch, classes]"
        )
    weight = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)

    def mix(x: Array) -> Array:
        pairs = x.reshape(batch // 2, 2, *x.shape[1:])
        return (weight * pairs + (1 - weight) * pairs[:, ::-1]).reshape(x.shape).astype(x.dtype)

    return mix(images), mix(labels)


def _uint8(images: ArrayLike) -> Array:
    """Returns the images as an array, and refuses another type."""
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise ValueError(f"images of {images.dtype}: expected uint8 in [0, 255]")
    return images


def _per_image(x: Array) -> Array:
    """Shapes [batch] to broadcast against [batch, height, width]."""
    return x[:, None, None]
