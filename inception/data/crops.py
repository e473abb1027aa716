"""Cropping, warping and resizing on the host, uint8 in and out; the device does the rest.

Training uses one random box per image (the released code's image_processing.py and slim's
inception_preprocessing.py); evaluation one central crop, or the 12 or 144 of table 4.

Pixels are half-pixel centered, as in OpenCV, Pillow and TensorFlow 2. TensorFlow 1's resize_images,
which the released code called, put pixel i of the output at i x scale of the input instead of
(i + 1/2) x scale - 1/2. So images moved up and left by (scale - 1) / 2 input pixels, and resizing
did not commute with flipping. We do not copy that.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
from PIL import Image

from inception.data.preprocessing import Preprocessing

Box = tuple[int, int, int, int]  # y, x, height, width in pixels

# The released code picks one of four at random for every image. Only area antialiases.
RESIZE_METHODS = {
    "bilinear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST_EXACT,  # OpenCV's plain nearest is not half-pixel centered
    "bicubic": cv2.INTER_CUBIC,  # Keys's kernel with a = -0.75, as in TensorFlow 1
    "area": cv2.INTER_AREA,  # where no side grows, see `_resize_area`
}
CROPS = (1, 12, 144)
_SUPPORT = 2  # radius of Pillow's widest filter here, bicubic, in pixels
_MAX_WASTE = 16  # of a resized image's pixels, as a multiple of its crop's; see `_crops_of_resized`


def sample_distorted_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (0.75, 1.33),
    min_object_covered: float = 0.1,
) -> Box:
    """Draws a random box from the distribution of tf.image.sample_distorted_bounding_box.

    The object is the whole image, as in the released code for images without an annotated box, so
    with the defaults no box has less than 0.1 of the image, whatever `area` says. The height is
    uniform, not the area, within what the area and the image allow; boxes never touch the last row
    or column unless they are as high or wide as the image. All this follows TensorFlow's kernel,
    sample_distorted_bounding_box_op.cc.

    Args:
      rng: Random number generator.
      height: Height of the image, pixels.
      width: Width of the image, pixels.
      area: Smallest and largest area of a box, as fractions of the image.
      aspect: Range of width / height, which is uniform.
      min_object_covered: Smallest fraction of the image; after 100 boxes that cover less, the box
        is the whole image.
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
        if h * round(h * ratio) < smallest:  # due to rounding
            h += 1
        if h * round(h * ratio) > largest:
            h -= 1
        w = round(h * ratio)
        fits = 0 < h <= height and 0 < w <= width and smallest <= h * w <= largest
        if fits and h * w >= min_object_covered * height * width:
            return _below(rng, height - h), _below(rng, width - w), h, w
    return 0, 0, height, width


def _below(rng: np.random.Generator, limit: int) -> int:
    """A uniform integer in [0, limit); 0 if that is empty."""
    return int(limit * rng.random())


def resize(
    image: np.ndarray, size: int, method: str = "bilinear", out: np.ndarray | None = None
) -> np.ndarray:
    """Resizes uint8 [height, width, 3] to [size, size, 3]; the aspect ratio is not kept.

    `method` is a name in RESIZE_METHODS; `out`, if given, receives the result.
    """
    if method == "area":
        return cv2.convertScaleAbs(_resize_area(image, size), dst=out)
    return cv2.resize(image, (size, size), dst=out, interpolation=RESIZE_METHODS[method])


def _resize_area(image: np.ndarray, size: int) -> np.ndarray:
    """TensorFlow's "area": the mean over what each pixel of the result covers, float32.

    OpenCV computes the same if both sides shrink (twice as fast in float32 as in uint8), but
    switches to bilinear as soon as one side grows; `_grow_area` enlarges such sides.
    """
    height, width = image.shape[:2]
    smaller = min(width, size), min(height, size)
    shrunk = cv2.resize(image.astype(np.float32), smaller, interpolation=cv2.INTER_AREA)
    for axis in (1, 0):
        if shrunk.shape[axis] < size:
            shrunk = _grow_area(shrunk, size, axis)
    return shrunk


def _grow_area(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Enlarges one side: a pixel of the result covers one or two pixels of the image."""
    length, ends = image.shape[axis], np.arange(1, size + 1) * image.shape[axis]
    first, second = (ends - length) // size, (ends - 1) // size
    weight = np.where(second > first, ends - second * size, 0) / length  # of the second
    parts = np.take(image, first, axis), np.take(image, second, axis)
    shape = [size if each == axis else 1 for each in range(3)]
    return parts[0] + (parts[1] - parts[0]) * weight.astype(np.float32).reshape(shape)


def crop(image: np.ndarray, box: Box) -> np.ndarray:
    """The part of an image [height, width, 3] inside a box, as a view."""
    y, x, height, width = box
    return image[y : y + height, x : x + width]


def _whole(_: np.random.Generator, height: int, width: int) -> Box:
    return 0, 0, height, width


# How each augmentation draws the box that it crops from an image.
_BOXES: dict[str, Callable[[np.random.Generator, int, int], Box]] = {
    "inception": sample_distorted_box,
    "inception_fast": sample_distorted_box,
    "resnet": partial(
        sample_distorted_box, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), min_object_covered=0.0
    ),
    "affine": _whole,
    "flip": _whole,
    "none": _whole,
}
AUGMENTATIONS = tuple(_BOXES)


def train_box(rng: np.random.Generator, augmentation: str, height: int, width: int) -> Box:
    """Draws the box that an augmentation crops from an image of height x width pixels."""
    return _BOXES[augmentation](rng, height, width)


def train_resize(
    rng: np.random.Generator, image: np.ndarray, augmentation: str, out: np.ndarray
) -> None:
    """Resizes the box of `train_box`, uint8 [height, width, 3], to `out`, uint8 [size, size, 3].

    'inception': by one of four methods; 'resnet': bilinear, or area where bilinear would skip
    pixels; 'affine': a random map, bilinear, of the area resize there; the others: bilinear.
    """
    size = out.shape[0]
    skips = min(image.shape[:2]) >= 2 * size  # bilinear reads 2x2 pixels
    match augmentation:
        case "inception":
            method = tuple(RESIZE_METHODS)[_below(rng, len(RESIZE_METHODS))]
            resize(image, size, method, out)
        case "resnet" if skips:
            resize(image, size, "area", out)
        case "affine":
            _warp(rng, resize(image, size, "area") if skips else image, out)
        case _:
            resize(image, size, "bilinear", out)


def _warp(rng: np.random.Generator, image: np.ndarray, out: np.ndarray) -> None:
    """Resizes an image to `out` by a random affine map; beyond the image its edge is repeated.

    The map rotates by up to 16 degrees, shears by up to 8, scales each side by exp(-0.16) to
    exp(0.16), about 0.85 to 1.17, and shifts by up to a tenth of each side.
    """
    size, sides = out.shape[0], np.array(image.shape[1::-1])  # x before y, as in OpenCV
    draws = rng.uniform(-1, 1, 6)
    angle, shear = np.radians([16, 8]) * draws[:2]
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ [[1, np.tan(shear)], [0, 1]] * (np.exp(0.16 * draws[2:4]) * sides / size)
    # Half-pixel centers: the middle of `out` shows a point near the middle of the image.
    offset = sides * (0.5 + 0.1 * draws[4:]) - linear.sum(1) * (size - 1) / 2 - 0.5
    matrix = np.column_stack([linear, offset])  # from pixels of `out` to those of the image
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(image, matrix, (size, size), out, flags, cv2.BORDER_REPLICATE)


def eval_crops(image: np.ndarray, preprocessing: Preprocessing, crops: int = 1) -> np.ndarray:
    """What evaluation sees of an image: uint8 [height, width, 3] -> [crops, size, size, 3].

    `crops` is one of CROPS; for 12 or 144 only preprocessing's size matters, see `multi_crop`.
    """
    size, interpolation = preprocessing.image_size, preprocessing.interpolation
    if crops > 1:
        return multi_crop(image, size, crops)
    match preprocessing.method:
        case "inception":
            image = _central_crop(image, preprocessing.crop_fraction)
        case "resize_crop":
            side = round(size / preprocessing.crop_fraction)
            height, width = _resized_shape(image, side)
            box = _center(height, width, size)
            return _crops_of_resized(image, side, [box], interpolation)[0][None]
        case "resize":
            pass
        case unknown:
            raise ValueError(f"unknown preprocessing method {unknown!r}")
    return resize(image, size, interpolation)[None]


def multi_crop(image: np.ndarray, size: int, crops: int) -> np.ndarray:
    """GoogLeNet's crops (section 7 of arXiv 1409.4842), which tables 4 and 5 of this paper use.

    Maps uint8 [height, width, 3] to [crops, size, size, 3]; `crops` is 12 or 144.
    144 = 4 scales x 3 squares (left, center, right; or top, center, bottom) x 6 (the four corners,
    the center, the whole square resized) x 2 (as is, mirrored), in this order, the last fastest.
    GoogLeNet's shorter sides, for an input size of 224, are 256, 288, 320 and 352; for another size
    ours are multiplied by size / 224 and rounded (342, 384, 427, 470 at 299). No paper says which
    12 crops table 4 means: ours are those of the first scale's center square, 6 x 2.
    """
    result = []
    for scale in (256, 288, 320, 352) if crops == 144 else (256,):
        side = round(scale * size / 224)
        below, right = (n - side for n in _resized_shape(image, side))  # one of them is 0
        thirds = (0, 1, 2) if crops == 144 else (1,)
        boxes = [(below * third // 2, right * third // 2, side, side) for third in thirds]
        for square in _crops_of_resized(image, side, boxes):
            ends = slice(size), slice(-size, None)
            corners = [square[rows, columns] for rows in ends for columns in ends]
            center = crop(square, _center(side, side, size))
            for each in (*corners, center, _antialiased(square, size, size)):
                result += [each, each[:, ::-1]]
    return np.stack(result)


def _central_crop(image: np.ndarray, fraction: float) -> np.ndarray:
    """tf.image.central_crop: equal margins, rounded down, so at least the fraction remains."""
    height, width = image.shape[:2]
    y, x = (int((n - n * fraction) / 2) for n in (height, width))
    return crop(image, (y, x, height - 2 * y, width - 2 * x))


def _center(height: int, width: int, size: int) -> Box:
    """The box of torchvision's center_crop; the image must not be smaller than the crop."""
    return round((height - size) / 2), round((width - size) / 2), size, size


def _resized_shape(image: np.ndarray, side: int) -> tuple[int, int]:
    """Height and width for a shorter side of `side`, truncated as in torchvision's Resize."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    return int(side * height / shorter), int(side * width / shorter)


def _crops_of_resized(
    image: np.ndarray, side: int, boxes: Sequence[Box], method: str = "bilinear"
) -> list[np.ndarray]:
    """Boxes of the image after resizing it to a shorter side of `side`.

    If the resized image would be far larger than the box, only the box is computed: the resized
    image of a strip of 60,000x1 pixels would take 20 GB.
    """
    height, width = _resized_shape(image, side)
    if height * width <= _MAX_WASTE * boxes[0][2] * boxes[0][3]:
        resized = _antialiased(image, height, width, method)
        return [crop(resized, box) for box in boxes]
    return [_crop_of_resized(image, (height, width), box, method) for box in boxes]


def _crop_of_resized(
    image: np.ndarray, shape: tuple[int, int], box: Box, method: str
) -> np.ndarray:
    """One box of an image after resizing it to `shape`, without computing the rest.

    Equal to a crop of the whole up to rounding: one gray level, in few pixels. Pillow keeps the
    corners of the source region in float32, so they are relative to what the filters read.
    """
    starts: list[float] = []
    sizes: list[float] = []
    for length, resized, start, size in zip(image.shape, shape, box[:2], box[2:], strict=False):
        scale = length / resized
        reach = math.ceil(_SUPPORT * max(scale, 1)) + 1
        low = max(0, math.floor(start * scale) - reach)
        high = min(length, math.ceil((start + size) * scale) + reach)
        image = image[:, low:high] if starts else image[low:high]
        starts.append(start * scale - low)
        sizes.append(size * scale)
    (y, x), (height, width) = starts, sizes
    read = (x, y, min(x + width, image.shape[1]), min(y + height, image.shape[0]))
    return _antialiased(image, *box[2:], method, read)


def _antialiased(
    image: np.ndarray,
    height: int,
    width: int,
    method: str = "bilinear",
    read: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Pillow's resize, whose filters widen with the scale (all but nearest).

    `read`: Left, top, right and bottom of the region that is resized; None for the whole image.
    """
    resampling = Image.Resampling[method.upper()]
    return np.asarray(Image.fromarray(image).resize((width, height), resampling, box=read))
