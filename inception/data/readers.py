"""One image or example, read and decoded; what is wrong with it is said with its name."""

import os

import numpy as np

from inception.data import DataError
from inception.data.decode import BadImage, decode, read_file
from inception.data.sources import Source

# A file's path or content, or pixels: uint8 [height, width], or [height, width, 1 or 3].
AnyImage = str | os.PathLike | bytes | np.ndarray
Label = int | np.ndarray  # int32 [label_width] in a multi-label source


def read_image(image: AnyImage, name: str) -> np.ndarray:
    """Decodes an image to uint8 [height, width, 3].

    Raises:
      BadImage: when it cannot be decoded; names its path or, if it has none, `name`.
    """
    try:
        if isinstance(image, (str, os.PathLike)):
            name = os.fspath(image)
            image = read_file(name)
        return decode(image)
    except BadImage as error:
        raise BadImage(f"{name}: {error}") from error


def read_example(source: Source, example: int) -> tuple[np.ndarray, Label]:
    """Reads one example: its image, uint8 [height, width, 3], and its label.

    Raises:
      BadImage: when the image cannot be decoded.
      DataError: when it is not there, or its label is outside the source's classes. Both name it.
    """
    try:
        image, label = source[example]
        pixels = decode(image)
    except BadImage as error:
        raise BadImage(f"example {example} ({source.name(example)}): {error}") from error
    except IndexError as error:
        raise DataError(
            f"the data set says it has {len(source)} examples, but has no number {example}. An "
            "epoch would be too short: prepare it again"
        ) from error
    lowest = -1 if source.label_width else 0
    if not lowest <= np.min(label) <= np.max(label) < source.num_classes:
        raise DataError(
            f"example {example} ({source.name(example)}): label {label} is outside the "
            f"{source.num_classes} classes. Does this split have labels?"
        )
    return pixels, label
