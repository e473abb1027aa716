"""One example, read and decoded; errors name it."""

import contextlib
from collections.abc import Iterator

import cv2
import numpy as np

from inception.data import DataError
from inception.data.decode import MAX_PIXELS, BadImage, ChooseBox, decode
from inception.data.sources import Label, Source


@contextlib.contextmanager
def naming(source: Source, example: int) -> Iterator[None]:
    """Adds an example's name to the errors of decoding and resizing it.

    Raises:
      BadImage: For a BadImage or an error of OpenCV.
      MemoryError: For a MemoryError; another image may have taken the memory, so this is not a
        BadImage.
    """
    try:
        yield
    except (BadImage, cv2.error) as error:
        raise BadImage(f"{source.name(example)}: {error}") from error
    except MemoryError as error:
        raise MemoryError(
            f"{source.name(example)}: too little memory to decode and resize it. A smaller "
            "max_pixels rejects large images before they are decoded"
        ) from error


def as_bad_image(error: Exception, name: str) -> BadImage:
    """An error of one image as a BadImage that names it, as errors from `naming` already do."""
    if isinstance(error, BadImage):
        return error
    return BadImage(str(error) if isinstance(error, MemoryError) else f"{name}: {error!r}")


def read_example(
    source: Source, example: int, choose_box: ChooseBox | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, Label]:
    """Reads one example: its image, uint8 [height, width, 3], and its label.

    With `choose_box`, only the box that it returns: see `decode`.

    Raises:
      BadImage: If the image cannot be decoded.
      DataError: If the record is missing, or its label is outside the source's classes.
      MemoryError: If the pixels do not fit into memory. Each of these names the example.
    """
    try:
        with naming(source, example):
            image, label = source[example]
            pixels = decode(image, choose_box, max_pixels)
    except IndexError as error:
        raise DataError(
            f"the data set claims {len(source)} examples, but number {example} is missing. Prepare "
            "it again"
        ) from error
    lowest, labels = (-1, label) if isinstance(label, np.ndarray) else (0, (label,))
    if not all(lowest <= each < source.num_classes for each in labels):
        raise DataError(
            f"{source.name(example)}: label {label} is outside the {source.num_classes} classes. "
            "Does this split have labels?"
        )
    return pixels, label
