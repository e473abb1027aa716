"""Images as they are stored and as the network sees them.

They are spread evenly over the split (a folder is sorted by class), and go through a run's stream
and augmentation as a small data set of their own. So the random choices have a run's distributions,
but are not those of a run with this seed.
"""

from itertools import islice

import numpy as np

from inception.data import augment
from inception.data.decode import MAX_PIXELS
from inception.data.folder import printable
from inception.data.preprocessing import Preprocessing
from inception.data.readers import read_example
from inception.data.sources import ArraySource, Source
from inception.data.stream import eval_stream, train_stream
from inception.show.page import COLUMNS, Row

EXAMPLES = 4  # training images


def training_rows(
    source: Source,
    *,
    seed: int,
    image_size: int,
    augmentation: str,
    max_pixels: int = MAX_PIXELS,
) -> list[Row]:
    """A few examples, one per row: as stored, then augmented in epoch 0, 1, ...

    Raises:
      DataError: For data that cannot be read, as `train_stream` does.
    """
    few = _few(source, EXAMPLES, max_pixels)
    size = len(few)  # a batch is an epoch, with every example
    stream = train_stream(
        few, seed=seed, image_size=image_size, batch_size=size, augmentation=augmentation
    )
    views = [[few[i][0]] for i in range(size)]
    for batch in islice(stream, COLUMNS - 1):
        keys = augment.keys(seed, batch["epoch"], batch["example"])
        images = augment.augment(keys, batch["image"], augmentation)
        for example, image in zip(batch["example"], np.asarray(images), strict=True):
            views[example].append((image + 1) / 2)
    captions = ["stored", *(f"epoch {epoch}" for epoch in range(COLUMNS - 1))]
    return [
        Row(_name(few, few[i][1]), images, () if i else captions) for i, images in enumerate(views)
    ]


def evaluation_rows(
    source: Source, preprocessing: Preprocessing, crops: int, max_pixels: int = MAX_PIXELS
) -> list[Row]:
    """A few examples with their single crops, or two, one per row, with some of their many crops.

    Raises:
      DataError: For data that cannot be read, as `eval_stream` does.
    """
    few = _few(source, 2 * COLUMNS if crops == 1 else 2, max_pixels)
    batch = next(eval_stream(few, preprocessing, batch_size=len(few) * crops, crops=crops))
    names, images = [_name(few, label) for label in batch["label"]], batch["image"]
    if crops > 1:
        shown = images[:, _spread(crops, COLUMNS)]
        return [Row(name, views) for name, views in zip(names, shown, strict=True)]
    starts = range(0, len(few), COLUMNS)
    return [Row("", images[i : i + COLUMNS, 0], names[i : i + COLUMNS]) for i in starts]


def _few(source: Source, count: int, max_pixels: int) -> ArraySource:
    """A data set of `count` examples, evenly spread over another, as pixels."""
    examples = [read_example(source, i, max_pixels=max_pixels) for i in _spread(len(source), count)]
    images, labels = zip(*examples, strict=True)
    return ArraySource(images, np.stack(labels), source.class_names, source.num_classes)


def _spread(length: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, count).astype(int)).tolist()


def _name(source: Source, label: int | np.ndarray) -> str:
    """The class's name, or the names of an image with several labels."""
    numbers = [int(number) for number in np.atleast_1d(label) if number >= 0]
    names = [printable(name).replace("_", " ") for name in source.class_names]
    return ", ".join(names[number] if names else f"class {number}" for number in numbers)
