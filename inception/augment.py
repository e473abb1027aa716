"""Augmentation on the device: flip, colour, scaling to [-1, 1]; and mixup.

The host crops and resizes (`inception.data.crops`) and sends uint8; the rest of the released code's
preprocessing (slim/preprocessing/inception_preprocessing.py) happens here, inside the jitted
training step. Every random choice of an image is drawn from a key of its own, so it depends, bit
for bit, on (seed, epoch, example) and on nothing else: not on the batch, the device or the number
of processes. (Pixels may differ in the last bit between batch sizes: XLA compiles each by itself.)

The colour operations are those of tf.image as it runs on a CPU, where the released code ran them,
also for values outside [0, 1], which appear between one operation and the next. (dm-pix agrees
inside [0, 1], but turns pixels darker than 0 grey when it rotates the hue.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

BRIGHTNESS = (-32 / 255, 32 / 255)  # added to values in [0, 1]
SATURATION = (0.5, 1.5)
HUE = (-0.2, 0.2)  # of a full turn
CONTRAST = (0.5, 1.5)

_STREAM = 0xC0100125  # keeps these bits apart from others of the seed: no int32 step is as large
_TINY = jnp.finfo(jnp.float32).tiny


class Choices(NamedTuple):
    """What is drawn for each image: arrays [batch]."""

    flip: Array  # bool
    order: Array  # int32, 0 to 3: which of slim's four orders of the colour operations
    brightness: Array
    saturation: Array
    hue: Array
    contrast: Array


def keys(seed: ArrayLike, epoch: ArrayLike, example: ArrayLike) -> Array:
    """Returns one key per image, [batch], from the run's seed and `epoch`, `example` int32 [batch].

    Threefry is asked for by name: JAX's other generators give other numbers under vmap, which
    would make an image's choices depend on its batch.
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
      keys: one key per image, [batch], from `keys`.
      images: uint8 [batch, height, width, 3].
      augmentation: "inception": flip and the four colour operations; "inception_fast": flip,
          brightness and saturation (slim's fast_mode); "resnet" and "flip": flip only (they
          differ in the crops); "none": scaling only.
      mean: of red, green, blue in [0, 1]; the result is (augmented - mean) / std.
      std: likewise.

    Returns:
      float32 [batch, height, width, 3]; in [-1, 1] with the defaults.

    Raises:
      ValueError: for images that are not such a batch.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or keys.shape != images.shape[:1]:
        raise ValueError(
            f"images {images.shape} with keys {keys.shape}: expected [batch, height, width, 3] "
            "and one key per image"
        )
    choices = choose(keys)
    if augmentation != "none":
        images = jnp.where(_per_image(choices.flip), images[:, :, ::-1], images)
    if augmentation == "inception":
        return _scale(distort_color(_uint8(images), choices), mean, std)
    if augmentation == "inception_fast":
        return _scale(distort_color_fast(_float(images) / 255, choices), mean, std)
    return normalize(images, mean, std)


def _scale(colors: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Scales what is in [0, 1]."""
    if tuple(mean) == tuple(std) == (0.5, 0.5, 0.5):
        return 2 * colors - 1
    return (colors - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def normalize(
    images: ArrayLike,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> Array:
    """Scales uint8 [..., height, width, 3] to float32, (x / 255 - mean) / std in each channel.

    That is the device's half of a Preprocessing; its defaults scale to [-1, 1].
    """
    # In this form 0 and 255 become -1 and 1 exactly, however the compiler rounds.
    centre, scale = (np.multiply(255, each).astype(np.float32) for each in (mean, std))
    return (_float(images) - centre) / scale


def choose(keys: Array) -> Choices:
    """Draws what `augment` does to each image: uniform within the ranges above, flip with 1/2."""
    u = jax.vmap(lambda key: jax.random.uniform(key, (6,)))(keys)
    ranges = (BRIGHTNESS, SATURATION, HUE, CONTRAST)
    values = [low + (high - low) * u[:, 2 + i] for i, (low, high) in enumerate(ranges)]
    return Choices(u[:, 0] < 0.5, (4 * u[:, 1]).astype(jnp.int32), *values)


def distort_color(images: Array, choices: Choices) -> Array:
    """Brightness, saturation, hue and contrast in one of slim's four orders, clipped to [0, 1].

    The orders are BSHC, SBCH, CHBS and HSCB. Brightness commutes with contrast (the mean moves
    along) and with hue (which looks at differences only), and hue commutes with saturation (one
    keeps a pixel's extremes, the other its hue). So all four orders are the one sequence below with
    some operations left out, and hue, the dearest of them, is computed once.

    Images are uint8 [batch, height, width, 3], or float32 in [0, 1].
    """
    _, order, brightness, saturation, hue, contrast = map(_per_image, choices)

    def to_first_contrast(images: Array) -> Array:
        return adjust_saturation(_unit(images), jnp.where(order == 1, saturation, 1))

    def to_second_contrast(images: Array, mean: Array) -> Array:
        factor = jnp.where((order == 1) | (order == 2), contrast, 1)
        x = adjust_contrast(to_first_contrast(images), factor, mean)
        x = adjust_hue(x + jnp.where(order == 3, 0, brightness), hue)
        return jnp.where(order == 1, x, adjust_saturation(x, saturation))

    images, first_mean = _anew(images, _mean(to_first_contrast(images)))
    images, second_mean = _anew(images, _mean(to_second_contrast(images, first_mean)))
    x = to_second_contrast(images, first_mean)
    x = adjust_contrast(x, jnp.where((order == 0) | (order == 3), contrast, 1), second_mean)
    return jnp.clip(x + jnp.where(order == 3, brightness, 0), 0, 1)


def _anew(images: Array, mean: Array) -> tuple[Array, Array]:
    """Both as they are; but a GPU or TPU computes from the images what it has computed before.

    That is cheaper there than to write it for the time when the mean is known. A CPU keeps it.
    """
    keep = lambda images, mean: (images, mean)  # noqa: E731
    anew = lambda *both: lax.optimization_barrier(both)  # noqa: E731
    return lax.platform_dependent(images, mean, cpu=keep, default=anew)


def _mean(images: Array) -> Array:
    return jnp.mean(images, axis=(-3, -2), keepdims=True)


def _unit(images: Array) -> Array:
    """Scales uint8 to [0, 1]; float32 images are there already."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def distort_color_fast(images: Array, choices: Choices) -> Array:
    """Brightness, then saturation; or, three times as often, the reverse (slim's fast_mode).

    slim draws one of four orders here too and treats the last three alike.
    """
    _, order, brightness, saturation, _, _ = map(_per_image, choices)
    images = adjust_saturation(images, jnp.where(order == 0, 1, saturation)) + brightness
    images = jnp.where(order == 0, adjust_saturation(images, saturation), images)
    return jnp.clip(images, 0, 1)


def adjust_contrast(images: Array, factor: Array | float, mean: Array | None = None) -> Array:
    """Scales each channel about its mean over the image, as tf.image.adjust_contrast.

    Here and below: images float32 [batch, height, width, 3], and a number or [batch, 1, 1, 1].
    """
    mean = _mean(images) if mean is None else mean
    return factor * (images - mean) + mean


def adjust_saturation(images: Array, factor: Array | float) -> Array:
    """Scales HSV saturation up to 1, as tf.image.adjust_saturation; `factor` is at least 0.

    Saturation is (high - low) / high. Scaling it at a fixed hue and value moves each channel
    towards or away from the highest in proportion, so no conversion to HSV is needed.
    """
    high, low = _extremes(images)
    spread = high - low
    inverse_saturation = high / jnp.maximum(spread, _TINY)
    return high - (high - images) * jnp.clip(inverse_saturation, 0, factor)


def _extremes(images: Array) -> tuple[Array, Array]:
    """Each pixel's highest and lowest channel.

    Element by element: a reduction over three channels would be a pass of its own on accelerators.
    """
    red, green, blue = jnp.split(images, 3, axis=-1)
    high = jnp.maximum(jnp.maximum(red, green), blue)
    return high, jnp.minimum(jnp.minimum(red, green), blue)


def adjust_hue(images: Array, turns: Array | float) -> Array:
    """Rotates HSV hue by `turns` of the colour circle, as tf.image.adjust_hue.

    A pixel keeps its lowest and highest value, and each channel lies between the two at a height
    that is a trapezoid of the hue: 1 within a sextant of the channel's own hue, 0 beyond two.
    """
    red, green, blue = jnp.split(images, 3, axis=-1)
    high, low = _extremes(images)
    spread = high - low
    hue = jnp.where(
        red == high,
        green - blue,
        jnp.where(green == high, blue - red + 2 * spread, red - green + 4 * spread),
    )
    sextants = hue / jnp.maximum(spread, _TINY) + 6 * turns  # from pure red
    from_opposite = jnp.mod(sextants + jnp.array([0.0, 4.0, 2.0]), 6) - 3
    return low + spread * jnp.clip(jnp.abs(from_opposite) - 1, 0, 1)


def mixup(key: Array, images: Array, labels: Array, alpha: float) -> tuple[Array, Array]:
    """Mixes each image and its label with a partner's (Zhang et al., arXiv 1710.09412).

    One weight w per batch, from Beta(alpha, alpha), as in the Gluon recipe
    (gluon-cv/scripts/classification/imagenet/train_imagenet.py). There the partners are a device's
    images in reverse; here neighbours, 0 with 1, 2 with 3. In shuffled batches both are pairs at
    random, used twice, with w and 1 - w; but neighbours always share a device and a batch
    normalization group, so nothing is sent.

    Args:
      key: one key for the batch.
      images: float [batch, height, width, 3], already augmented; batch is even.
      labels: float [batch, classes], one-hot or smoothed.
      alpha: above 0; the smaller, the less is mixed.

    Raises:
      ValueError: for an odd batch, or labels that are not one row per image.
    """
    batch = images.shape[0]
    if batch % 2 or labels.ndim != 2 or len(labels) != batch:
        raise ValueError(
            f"mixup of a batch of {batch} with labels {labels.shape}: expected an even batch, and "
            "labels [batch, classes]"
        )
    weight = jax.random.beta(key, alpha, alpha)

    def mix(x: Array) -> Array:
        pairs = x.reshape(batch // 2, 2, *x.shape[1:])
        return (weight * pairs + (1 - weight) * pairs[:, ::-1]).reshape(x.shape).astype(x.dtype)

    return mix(images), mix(labels)


def _float(images: ArrayLike) -> Array:
    return _uint8(images).astype(jnp.float32)


def _uint8(images: ArrayLike) -> Array:
    """Refuses images of another type."""
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise ValueError(f"images of {images.dtype}: expected uint8 in [0, 255]")
    return images


def _per_image(x: Array) -> Array:
    """Shapes [batch] to broadcast against [batch, height, width, channels]."""
    return x[:, None, None, None]
