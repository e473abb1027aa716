"""Which images are shown, as they are stored and as the network sees them.

They are spread evenly over the split (a folder is sorted by class). They go through the same stream
and augmentation as in a run, as a small data set of their own: what is drawn for an image is drawn
from the same distributions, but is not what a run with this seed draws for it.
"""

from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from inception import augment
from inception.data.folder import printable
from inception.data.readers import read_example
from inception.data.sources import ArraySource, Source
from inception.data.stream import eval_stream, train_stream
from inception.preprocessing import Preprocessing

EXAMPLES = 4  # training images
COLUMNS = 6  # the stored image and five epochs; below, evaluation crops


class Views(NamedTuple):
    """What one example looks like."""

    label: str  # names of the class or classes
    images: list[Any]  # arrays [height, width, 3], uint8 or float in [0, 1]


def training_views(source: Source, *, seed: int, image_size: int, augmentation: str) -> list[Views]:
    """Returns a few examples: as stored, then augmented in epoch 0, 1, ...

    Raises:
      BadImage, DataError: for data that cannot be read, as `train_stream` does.
    """
    few = _few(source, EXAMPLES)
    size = len(few)  # a batch is an epoch, and holds every example
    stream = train_stream(
        few, seed=seed, image_size=image_size, batch_size=size, augmentation=augmentation
    )
    views = [Views(_name(few, few[i][1]), [few[i][0]]) for i in range(size)]
    for batch in islice(stream, COLUMNS - 1):
        keys = augment.keys(seed, batch["epoch"], batch["example"])
        images = augment.augment(keys, batch["image"], augmentation)
        for example, image in zip(batch["example"], np.asarray(images), strict=True):
            views[example].images.append((image + 1) / 2)
    return views


def evaluation_views(source: Source, preprocessing: Preprocessing, crops: int) -> list[Views]:
    """Returns a few examples: the crop of each, or of two examples some of the many crops.

    Raises:
      BadImage, DataError: for data that cannot be read, as `eval_stream` does.
    """
    few = _few(source, 2 * COLUMNS if crops == 1 else 2)
    batch = next(eval_stream(few, preprocessing, batch_size=len(few) * crops, crops=crops))
    shown = _spread(crops, COLUMNS)
    return [
        Views(_name(few, label), list(images[shown]))
        for label, images in zip(batch["label"], batch["image"], strict=True)
    ]


def _few(source: Source, count: int) -> ArraySource:
    """A data set of `count` examples, evenly spread over another, as pixels."""
    images, labels = zip(
        *(read_example(source, i) for i in _spread(len(source), count)), strict=True
    )
    return ArraySource(images, np.stack(labels), source.class_names, source.num_classes)


def _spread(length: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, count).astype(int)).tolist()


def _name(source: Source, label: int | np.ndarray) -> str:
    """Returns the class's name, or the names of an image with several labels."""
    numbers = [int(number) for number in np.atleast_1d(label) if number >= 0]
    names = source.class_names
    return ", ".join(
        printable(names[n]).replace("_", " ") if names else f"class {n}" for n in numbers
    )
