"""One example, read and decoded; what is wrong with it is said with its name."""

import numpy as np

from inception.data import DataError
from inception.data.decode import BadImage, Choose, decode
from inception.data.sources import Label, Source


def read_example(
    source: Source, example: int, choose: Choose | None = None
) -> tuple[np.ndarray, Label]:
    """Reads one example: its image, uint8 [height, width, 3], and its label.

    Of the image only the box that `choose` returns, if there is one: see `decode`.

    Raises:
      BadImage: when the image cannot be decoded.
      DataError: when it is not there, or its label is outside the source's classes. Both name it.
    """
    try:
        image, label = source[example]
        pixels = decode(image, choose)
    except BadImage as error:
        raise BadImage(f"{source.name(example)}: {error}") from error
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
