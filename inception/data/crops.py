"""Crops and resizes on the host, uint8 in and out; flips and colours follow on the device.

Training takes one random box per image (the released code's image_processing.py and slim's
inception_preprocessing.py); evaluation takes one central crop, or the 12 or 144 of table 4.

Pixels are half-pixel centred, as in OpenCV, Pillow and TensorFlow 2. TensorFlow 1's resize_images,
which the released code called, put pixel i of the output at i x scale of the input instead of
(i + 1/2) x scale - 1/2: all moved up and left by (scale - 1) / 2 input pixels, and a flipped image
was no longer the flip of the resized one. We did not copy that.
"""

import math
from typing import Any

import cv2
import numpy as np
from PIL import Image

from inception.preprocessing import Preprocessing

Box = tuple[int, int, int, int]  # y, x, height, width in pixels

# The released code picks one of four at random for every image. None of them antialiases but area.
RESIZE_METHODS = {
    "bilinear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST_EXACT,  # OpenCV's plain nearest is not half-pixel centred
    "bicubic": cv2.INTER_CUBIC,  # Keys's kernel with a = -0.75, as in TensorFlow 1
    "area": cv2.INTER_AREA,
}
# What the host does for each augmentation: arguments of `sample_distorted_box`; None: no crop.
_BOXES: dict[str, dict[str, Any] | None] = {
    "inception": {},
    "inception_fast": {},
    "resnet": {"area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3), "min_object_covered": 0.0},
    "flip": None,
    "none": None,
}
AUGMENTATIONS = tuple(_BOXES)
CROPS = (1, 12, 144)


def sample_distorted_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (0.75, 1.33),
    min_object_covered: float = 0.1,
) -> Box:
    """Draws a random box, in distribution as tf.image.sample_distorted_bounding_box does.

    The object is the whole image, as in the released code where an image has no annotated box, so
    with the defaults no box has less than 0.1 of the image, whatever `area` says. Not the area but
    the height is uniform, between those that the area and the image allow; boxes never touch the
    last row or column unless they are as high or wide as the image. All this is TensorFlow's
    kernel, sample_distorted_bounding_box_op.cc.

    Args:
      rng: what decides.
      height: of the image, pixels.
      width: of the image, pixels.
      area: the smallest and largest box, as fractions of the image.
      aspect: width / height, drawn uniformly from this range.
      min_object_covered: fraction of the image; after 100 boxes that cover less, it is the whole.
    """
    smallest, largest = (fraction * height * width for fraction in area)
    for _ in range(100):
        ratio = aspect[0] + (aspect[1] - aspect[0]) * rng.random()
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
        if fits and h * w >= min_object_covered * height * width:
            return _below(rng, height - h), _below(rng, width - w), h, w
    return 0, 0, height, width


def _below(rng: np.random.Generator, limit: int) -> int:
    """Uniform in [0, limit); 0 where that is empty."""
    return int(limit * rng.random())


def resize(
    image: np.ndarray, size: int, method: str = "bilinear", out: np.ndarray | None = None
) -> np.ndarray:
    """Resizes uint8 [height, width, 3] to [size, size, 3]; the aspect ratio is not kept.

    `method` is a name of RESIZE_METHODS, `out` may be an array for the result.
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


def train_box(rng: np.random.Generator, augmentation: str, height: int, width: int) -> Box:
    """Draws what an augmentation takes of an image of height x width pixels.

    'inception' and 'inception_fast': a distorted box; 'resnet': one of 0.08 to 1 of the area;
    'flip' and 'none': the whole image.
    """
    limits = _BOXES[augmentation]
    if limits is None:
        return 0, 0, height, width
    return sample_distorted_box(rng, height, width, **limits)


def train_resize(
    rng: np.random.Generator, image: np.ndarray, augmentation: str, out: np.ndarray
) -> None:
    """Resizes what `train_box` took, uint8 [height, width, 3], to `out`, uint8 [size, size, 3].

    'inception': by one of four methods; 'resnet': bilinear, or area where bilinear would skip
    pixels; the others: bilinear.
    """
    size, method = out.shape[0], "bilinear"
    if augmentation == "inception":
        method = tuple(RESIZE_METHODS)[_below(rng, len(RESIZE_METHODS))]
    elif augmentation == "resnet" and min(image.shape[:2]) >= 2 * size:
        method = "area"  # bilinear reads two pixels a side, so from a factor of 2 on it skips some
    resize(image, size, method, out)


def eval_crops(image: np.ndarray, preprocessing: Preprocessing, crops: int = 1) -> np.ndarray:
    """Maps uint8 [height, width, 3] to what is evaluated, [crops, size, size, 3].

    `crops` is one of CROPS; of 12 or 144 (see `multi_crop`) preprocessing says only the size.
    """
    size, interpolation = preprocessing.image_size, preprocessing.interpolation
    if crops > 1:
        return multi_crop(image, size, crops)
    match preprocessing.method:
        case "inception":
            image = _central_crop(image, preprocessing.crop_fraction)
        case "resize_crop":
            side = round(size / preprocessing.crop_fraction)
            return _centre(_resize_shorter_side(image, side, interpolation), size)[None]
        case "resize":
            pass
        case unknown:
            raise ValueError(f"unknown preprocessing method {unknown!r}")
    return resize(image, size, interpolation)[None]


def multi_crop(image: np.ndarray, size: int, crops: int) -> np.ndarray:
    """GoogLeNet's crops (section 7 of arXiv 1409.4842), used for tables 4 and 5 of this paper.

    Maps uint8 [height, width, 3] to [crops, size, size, 3]; `crops` is 12 or 144.
    144 = 4 scales x 3 squares (left, centre, right; or top, centre, bottom) x 6 (the four corners,
    the centre, the whole square resized) x 2 (as is, mirrored), in this order, the last fastest.
    The shorter side of the image is resized to 256, 288, 320 and 352 for a 224 network; for another
    size ours are these times size / 224, rounded (342, 384, 427, 470 at 299). No paper says which
    12 crops table 4 means: ours are those of the first scale's centre square, 6 x 2.
    """
    result = []
    for scale in (256, 288, 320, 352) if crops == 144 else (256,):
        resized = _resize_shorter_side(image, round(scale * size / 224))
        side = min(resized.shape[:2])
        for third in (0, 1, 2) if crops == 144 else (1,):
            y, x = ((n - side) * third // 2 for n in resized.shape[:2])
            square = crop(resized, (y, x, side, side))
            ends = slice(size), slice(-size, None)
            corners = [square[rows, columns] for rows in ends for columns in ends]
            for each in (*corners, _centre(square, size), _antialiased(square, size, size)):
                result += [each, each[:, ::-1]]
    return np.stack(result)


def _central_crop(image: np.ndarray, fraction: float) -> np.ndarray:
    """tf.image.central_crop: equal margins, so the result is at least the fraction."""
    height, width = image.shape[:2]
    y, x = (int((n - n * fraction) / 2) for n in (height, width))
    return crop(image, (y, x, height - 2 * y, width - 2 * x))


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    """As torchvision's center_crop, to a size that the image has."""
    y, x = (round((n - size) / 2) for n in image.shape[:2])
    return crop(image, (y, x, size, size))


def _resize_shorter_side(image: np.ndarray, side: int, method: str = "bilinear") -> np.ndarray:
    """As torchvision's Resize: the longer side is truncated to whole pixels."""
    height, width = (int(side * n / min(image.shape[:2])) for n in image.shape[:2])
    return _antialiased(image, height, width, method)


def _antialiased(
    image: np.ndarray, height: int, width: int, method: str = "bilinear"
) -> np.ndarray:
    """Pillow's resize, whose filters grow with the scale (all but nearest)."""
    resampling = Image.Resampling[method.upper()]
    return np.asarray(Image.fromarray(image).resize((width, height), resampling))
