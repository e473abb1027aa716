"""One example, read and decoded; what is wrong with it is said with its name."""

import contextlib
from collections.abc import Iterator

import cv2
import numpy as np

from inception.data import DataError
from inception.data.decode import MAX_PIXELS, BadImage, Choose, decode
from inception.data.sources import Label, Source


@contextlib.contextmanager
def naming(source: Source, example: int) -> Iterator[None]:
    """Lets errors of decoding and resizing an example name it.

    Raises:
      BadImage: for one, and for OpenCV's own errors.
      MemoryError: for one; it may be another image's fault, so it is not a BadImage.
    """
    try:
        yield
    except (BadImage, cv2.error) as error:
        raise BadImage(f"{source.name(example)}: {error}") from error
    except MemoryError as error:
        raise MemoryError(
            f"{source.name(example)}: too little memory to decode and resize it. A smaller "
            "max_pixels refuses large images before they are decoded"
        ) from error


def as_bad_image(error: Exception, name: str) -> BadImage:
    """An error of one image as a BadImage that names it; what `naming` raises does already."""
    if isinstance(error, BadImage):
        return error
    return BadImage(str(error) if isinstance(error, MemoryError) else f"{name}: {error!r}")


def read_example(
    source: Source, example: int, choose: Choose | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, Label]:
    """Reads one example: its image, uint8 [height, width, 3], and its label.

    Of the image only the box that `choose` returns, if there is one: see `decode`.

    Raises:
      BadImage: when the image cannot be decoded.
      DataError: when it is not there, or its label is outside the source's classes.
      MemoryError: when its pixels do not fit. All of these name it.
    """
    try:
        with naming(source, example):
            image, label = source[example]
            pixels = decode(image, choose, max_pixels)
    except IndexError as error:
        raise DataError(
            f"the data set says it has {len(source)} examples, but has no number {example}. An "
            "epoch would be too short: prepare it again"
        ) from error
    lowest, labels = (-1, label) if isinstance(label, np.ndarray) else (0, (label,))
    if not all(lowest <= each < source.num_classes for each in labels):
        raise DataError(
            f"{source.name(example)}: label {label} is outside the {source.num_classes} classes. "
            "Does this split have labels?"
        )
    return pixels, label
