"""Crops and resizes on the host, uint8 in and out; flips and colours follow on the device.

Training takes one random box an image (the released code's image_processing.py and slim's
inception_preprocessing.py); evaluation takes one central crop, or the 12 or 144 of table 4.

Pixels are half-pixel centred, as in OpenCV, Pillow and TensorFlow 2. TensorFlow 1's resize_images
with align_corners=False, which the released code called, put pixel i of the output at i x scale of
the input instead of (i + 1/2) x scale - 1/2: everything moved up and left by (scale - 1) / 2 input
pixels, the four methods not all alike, and a flipped image was no longer the flip of the resized
one. We did not copy that.
"""

import math

import cv2
import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]  # y, x, height, width in pixels

# The released code picks one of four at random for every image. None of them antialiases but area.
RESIZE_METHODS = {
    "bilinear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST_EXACT,  # OpenCV's plain nearest is not half-pixel centred
    "bicubic": cv2.INTER_CUBIC,  # Keys's kernel with a = -0.75, as in TensorFlow 1
    "area": cv2.INTER_AREA,
}
AUGMENTATIONS = ("inception", "inception_fast", "resnet", "flip", "none")
PREPROCESSINGS = ("inception", "resize_crop")
CROPS = (1, 12, 144)


def sample_distorted_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (0.75, 1.33),
    min_object_covered: float = 0.1,
    attempts: int = 100,
) -> Box:
    """Draws a random box, in distribution as tf.image.sample_distorted_bounding_box does.

    The object is the whole image, as in the released code where an image has no annotated box. The
    box must then cover `min_object_covered` of it, so that with the defaults no box has less than
    0.1 of the image, whatever `area` says. Not the area but the height is uniform, between those
    that the area and the image allow; boxes never touch the last row or column unless they are as
    high or wide as the image. All this is TensorFlow's kernel, sample_distorted_bounding_box_op.cc.

    Args:
      rng: what decides.
      height: of the image, pixels.
      width: of the image, pixels.
      area: the smallest and largest box, as fractions of the image.
      aspect: width / height, drawn uniformly from this range.
      min_object_covered: fraction of the image that the box must cover.
      attempts: after so many failures the box is the whole image.

    Returns:
      y, x, height, width in pixels.
    """
    smallest, largest = (fraction * height * width for fraction in area)
    for _ in range(attempts):
        ratio = aspect[0] + (aspect[1] - aspect[0]) * rng.random()
        size = _sample_size(rng, height, width, ratio, smallest, largest)
        if size and size[0] * size[1] >= min_object_covered * height * width:
            y, x = _below(rng, height - size[0]), _below(rng, width - size[1])
            return y, x, *size
    return 0, 0, height, width


def _below(rng: np.random.Generator, limit: int) -> int:
    """Uniform in [0, limit); 0 where that is empty."""
    return int(limit * rng.random())


def _sample_size(
    rng: np.random.Generator,
    height: int,
    width: int,
    ratio: float,
    smallest: float,
    largest: float,
) -> tuple[int, int] | None:
    """A box's height and width for one aspect ratio, or None where the image has no room for it."""
    high = round(math.sqrt(largest / ratio))
    if round(high * ratio) > width:
        high = int((width + 0.5 - 1e-7) / ratio)
    high = min(high, height)
    low = min(round(math.sqrt(smallest / ratio)), high)

    h = low + _below(rng, high - low + 1)
    if h * round(h * ratio) < smallest:  # by rounding alone
        h += 1
    if h * round(h * ratio) > largest:
        h -= 1
    w = round(h * ratio)
    fits = 0 < h <= height and 0 < w <= width and smallest <= h * w <= largest
    return (h, w) if fits else None


def resize(
    image: np.ndarray, size: int, method: str = "bilinear", out: np.ndarray | None = None
) -> np.ndarray:
    """Resizes to a square with half-pixel centres; the aspect ratio is not kept.

    Args:
      image: uint8 [height, width, 3]; may be a view into a larger image.
      size: of the result, pixels.
      method: a name of RESIZE_METHODS.
      out: uint8 [size, size, 3] for the result.

    Returns:
      uint8 [size, size, 3].
    """
    shape, interpolation = (size, size), RESIZE_METHODS[method]
    if method == "area":  # OpenCV's is twice as fast in float32 as in uint8
        wide = cv2.resize(image.astype(np.float32), shape, interpolation=interpolation)
        return cv2.convertScaleAbs(wide, dst=out)
    return cv2.resize(image, shape, dst=out, interpolation=interpolation)


def crop(image: np.ndarray, box: Box) -> np.ndarray:
    """The part of an image [height, width, 3] inside a box, as a view."""
    y, x, height, width = box
    return image[y : y + height, x : x + width]


def train_crop(
    rng: np.random.Generator, image: np.ndarray, augmentation: str, out: np.ndarray
) -> None:
    """The part of `config.augmentation` that is done on the host.

    'inception': a distorted box, one of four resize methods; 'inception_fast': the same box,
    bilinear; 'resnet': a box of 0.08 to 1 of the area, bilinear, or area where bilinear would skip
    pixels; 'flip' and 'none': the whole image, bilinear.

    Args:
      rng: what decides.
      image: uint8 [height, width, 3].
      augmentation: a name of AUGMENTATIONS.
      out: uint8 [size, size, 3], where the crop is written.

    Raises:
      ValueError: for another augmentation.
    """
    size = out.shape[0]
    height, width = image.shape[:2]
    match augmentation:
        case "inception":
            box = sample_distorted_box(rng, height, width)
            method = tuple(RESIZE_METHODS)[_below(rng, len(RESIZE_METHODS))]
        case "inception_fast":
            box, method = sample_distorted_box(rng, height, width), "bilinear"
        case "resnet":
            box = sample_distorted_box(
                rng, height, width, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), min_object_covered=0.0
            )
            # Bilinear reads two pixels a side, so from a factor of 2 on it reads only some of them.
            method = "area" if min(box[2:]) >= 2 * size else "bilinear"
        case "flip" | "none":
            box, method = (0, 0, height, width), "bilinear"
        case _:
            raise ValueError(f"config.augmentation is {augmentation!r}; known: {AUGMENTATIONS}")
    resize(crop(image, box), size, method, out)


def eval_crops(
    image: np.ndarray,
    size: int,
    preprocessing: str = "inception",
    crop_fraction: float = 0.875,
    crops: int = 1,
) -> np.ndarray:
    """The crops of one image that are evaluated, all cut from one decode.

    One crop, 'inception' (the released code): the central `crop_fraction` of each side, resized
    bilinearly without antialiasing; the aspect ratio is not kept. One crop, 'resize_crop'
    (torchvision, timm): the shorter side resized to size / crop_fraction, antialiased by Pillow as
    theirs is, and the centre cut out. 12 or 144 crops: see `multi_crop`; the preprocessing and
    the fraction play no part.

    Args:
      image: uint8 [height, width, 3].
      size: of each crop, pixels.
      preprocessing: a name of PREPROCESSINGS.
      crop_fraction: in (0, 1].
      crops: 1, 12 or 144.

    Returns:
      uint8 [crops, size, size, 3].

    Raises:
      ValueError: for another preprocessing, or fraction, or number of crops.
    """
    if not 0 < crop_fraction <= 1:
        raise ValueError(f"config.eval.crop_fraction is {crop_fraction}; it must be in (0, 1]")
    if crops != 1:
        return multi_crop(image, size, crops)
    match preprocessing:
        case "inception":
            return resize(_central_crop(image, crop_fraction), size)[None]
        case "resize_crop":
            image = _resize_shorter_side(image, round(size / crop_fraction))
            return _centre(image, size)[None]
    raise ValueError(f"config.eval.preprocessing is {preprocessing!r}; known: {PREPROCESSINGS}")


def multi_crop(image: np.ndarray, size: int, crops: int) -> np.ndarray:
    """GoogLeNet's crops (section 7 of arXiv 1409.4842), used for tables 4 and 5 of this paper.

    144 = 4 scales x 3 squares (left, centre, right; or top, centre, bottom) x 6 (the four corners,
    the centre, the whole square resized) x 2 (as is, mirrored), in this order, the last fastest.
    The shorter side of the image is resized to 256, 288, 320 and 352 for a 224 network; for another
    size ours are these times size / 224, rounded (342, 384, 427, 470 at 299). No paper says which
    12 crops table 4 means: ours are those of the first scale's centre square, 6 x 2.

    Args:
      image: uint8 [height, width, 3].
      size: of each crop, pixels.
      crops: 12 or 144.

    Returns:
      uint8 [crops, size, size, 3].

    Raises:
      ValueError: for another number of crops.
    """
    if crops not in (12, 144):
        raise ValueError(f"config.eval.crops is {crops}; known: {CROPS}")
    result = []
    for scale in (256, 288, 320, 352) if crops == 144 else (256,):
        squares = _squares(_resize_shorter_side(image, round(scale * size / 224)))
        for square in squares if crops == 144 else squares[1:2]:
            for crop in _six(square, size):
                result += [crop, crop[:, ::-1]]
    return np.stack(result)


def _squares(image: np.ndarray) -> list[np.ndarray]:
    """The squares at the start, middle and end of the longer side."""
    height, width = image.shape[:2]
    side = min(height, width)
    ys, xs = ((n - side) * np.array([0, 1, 2]) // 2 for n in (height, width))
    return [crop(image, (y, x, side, side)) for y, x in zip(ys, xs, strict=True)]


def _six(square: np.ndarray, size: int) -> list[np.ndarray]:
    """The four corners, the centre, and the whole square resized."""
    ends = slice(size), slice(-size, None)
    corners = [square[y, x] for y in ends for x in ends]
    return [*corners, _centre(square, size), _antialiased(square, size, size)]


def _central_crop(image: np.ndarray, fraction: float) -> np.ndarray:
    """tf.image.central_crop: equal margins, so the result is at least the fraction."""
    height, width = image.shape[:2]
    y, x = (int((n - n * fraction) / 2) for n in (height, width))
    return crop(image, (y, x, height - 2 * y, width - 2 * x))


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    """As torchvision's center_crop, to a size that the image has."""
    y, x = (round((n - size) / 2) for n in image.shape[:2])
    return crop(image, (y, x, size, size))


def _resize_shorter_side(image: np.ndarray, side: int) -> np.ndarray:
    """As torchvision's Resize: the longer side is truncated to whole pixels."""
    height, width = image.shape[:2]
    if height <= width:
        return _antialiased(image, side, int(side * width / height))
    return _antialiased(image, int(side * height / width), side)


def _antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bilinear resize, whose filter grows with the scale."""
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
