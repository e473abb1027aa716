"""What stands at a position of a run: the example, decoded, cropped and written into its batch."""

import functools
import threading
from typing import Protocol

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from inception.data import DataError, crops
from inception.data.decode import BadImage, decode
from inception.data.exclude import Excluded
from inception.data.sources import Source

Batch = dict[str, np.ndarray]

_NO_EXAMPLE = 2**32 - 1  # in place of an example's number in the key of an epoch's permutation
_MOST_SKIPS = 100  # bad records in a row that are still an accident


class Reader(Protocol):
    """Writes examples into batches."""

    def empty(self, size: int) -> Batch:
        """Returns room for a batch of `size` examples."""
        ...

    def fill(self, batch: Batch, row: int, position: int) -> None:
        """Writes the example at a position of the run into a row of each array."""
        ...


class TrainReader:
    """Examples in the order of the epochs, cropped at random."""

    def __init__(self, config: ConfigDict, source: Source):
        self._source, self._size = source, size_of(source)
        self._seed = config.seed
        self._image_size, self._augmentation = config.image_size, config.augmentation
        self._skip = config.on_bad_record == "skip"
        self._skipped, self._lock = 0, threading.Lock()
        # Two, because threads are on both sides of the end of an epoch for a while.
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    def empty(self, size: int) -> Batch:
        """Returns room for a batch of `size` examples."""
        return {
            "image": np.empty((size, self._image_size, self._image_size, 3), np.uint8),
            **{name: np.empty(size, np.int32) for name in ("label", "epoch", "example")},
        }

    def fill(self, batch: Batch, row: int, position: int) -> None:
        """Writes the example at a position: number position mod n of epoch position div n."""
        epoch, place = divmod(position, self._size)
        example, image, label = self._load(self._order(epoch), place)
        rng = _generator(self._seed, epoch, example)
        crops.train_crop(rng, image, self._augmentation, out=batch["image"][row])
        batch["label"][row], batch["epoch"][row], batch["example"][row] = label, epoch, example

    def _permutation(self, epoch: int) -> np.ndarray:
        examples = np.arange(self._size, dtype=np.int32)
        return _generator(self._seed, epoch, _NO_EXAMPLE).permutation(examples)

    def _load(self, order: np.ndarray, place: int) -> tuple[int, np.ndarray, int | np.ndarray]:
        """The example at a place of the order, or the next one that can be decoded."""
        attempts = min(self._size, _MOST_SKIPS) if self._skip else 1
        for attempt in range(attempts):
            example = int(order[(place + attempt) % self._size])
            try:
                return example, *_read(self._source, example)
            except BadImage as error:
                if not self._skip:
                    raise
                self._count(error)
        raise BadImage(f"{attempts} records in a row cannot be decoded, up to example {example}")

    def _count(self, error: BadImage) -> None:
        with self._lock:
            self._skipped += 1
            logging.warning("Skipped (%d since this start): %s", self._skipped, error)


class EvalReader:
    """Examples in the source's order, then padding."""

    def __init__(self, config: ConfigDict, source: Source):
        self._source = source
        self._image_size, self._crops = config.image_size, config.eval.crops
        self._preprocessing = config.eval.preprocessing
        self._crop_fraction = config.eval.crop_fraction
        self._excluded = Excluded(config.eval.exclude) if config.eval.exclude else ()

    def empty(self, size: int) -> Batch:
        """Returns a batch of padding."""
        width = self._source.label_width
        return {
            "image": np.zeros((size, self._crops, self._image_size, self._image_size, 3), np.uint8),
            "label": np.full((size, width), -1, np.int32) if width else np.zeros(size, np.int32),
            "example": np.full(size, -1, np.int32),
            "mask": np.zeros(size, np.bool_),
        }

    def fill(self, batch: Batch, row: int, position: int) -> None:
        """Writes the example at a position, unless it is left out or behind the last."""
        if position >= len(self._source):
            return
        batch["example"][row] = position
        if self._excluded and self._source.file_name(position) in self._excluded:
            return
        image, batch["label"][row] = _read(self._source, position)
        batch["image"][row] = crops.eval_crops(
            image, self._image_size, self._preprocessing, self._crop_fraction, self._crops
        )
        batch["mask"][row] = True


def size_of(source: Source) -> int:
    """The number of examples, which must not be 0."""
    if not len(source):
        raise DataError("the data set has no examples")
    return len(source)


def _read(source: Source, example: int) -> tuple[np.ndarray, int | np.ndarray]:
    """Reads and decodes one example; every error names it."""
    try:
        image, label = source[example]
        image = decode(image)
    except BadImage as error:
        raise BadImage(f"{source.describe(example)}: {error}") from error
    except IndexError as error:
        raise DataError(
            f"the data set says it has {len(source)} examples, but has no number {example}: an "
            "epoch would be too short; prepare it again"
        ) from error
    except OSError as error:
        raise DataError(f"{source.describe(example)}: {error}") from error
    if isinstance(label, np.ndarray):  # multi-label, padded with -1
        inside = label.min() >= -1 and label.max() < source.num_classes
    else:
        inside = 0 <= label < source.num_classes
    if not inside:
        raise DataError(
            f"{source.describe(example)}: label {label} is outside the {source.num_classes} classes"
        )
    return image, label


def _generator(seed: int, epoch: int, example: int) -> np.random.Generator:
    """The random numbers of one example in one epoch: a Philox stream of its own, so cheap."""
    key = np.array([seed % 2**64, epoch << 32 | example], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
