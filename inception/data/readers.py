"""What stands at a position of a run: the image, decoded, cropped and written into its batch.

A reader makes room for a batch with `empty` and writes one row of each of its arrays with `fill`.
"""

import functools
import logging
import os
import threading
from collections.abc import Callable, Container, Sequence

import numpy as np

from inception.data import DataError, crops
from inception.data.decode import BadImage, decode, read_file
from inception.data.sources import Source
from inception.preprocessing import Preprocessing

Batch = dict[str, np.ndarray]
Label = int | np.ndarray  # int32 [label_width] in a multi-label source
# A file's path or content, or pixels: uint8 [height, width], or [height, width, 1 or 3].
AnyImage = str | os.PathLike | bytes | np.ndarray

_NO_EXAMPLE = 2**32 - 1  # in place of an example's number in the key of an epoch's permutation
_MOST_SKIPS = 100  # bad records in a row that are still an accident


class TrainReader:
    """Examples in the order of the epochs, cropped at random; see `stream.train_stream`."""

    def __init__(
        self, source: Source, seed: int, image_size: int, augmentation: str, on_bad_record: str
    ):
        self._source, self._size = source, len(source)
        self._seed, self._image_size, self._augmentation = seed, image_size, augmentation
        self._skip = on_bad_record == "skip"
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

    def _load(self, order: np.ndarray, place: int) -> tuple[int, np.ndarray, Label]:
        """The example at a place of the order, or the next one that can be decoded."""
        attempts = min(self._size, _MOST_SKIPS) if self._skip else 1
        for attempt in range(attempts):
            example = int(order[(place + attempt) % self._size])
            try:
                return example, *read_example(self._source, example)
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
    """Examples in the source's order, then padding; see `stream.eval_stream`."""

    def __init__(
        self, source: Source, preprocessing: Preprocessing, crops: int, exclude: Container[str]
    ):
        self._source, self._exclude = source, exclude
        self._preprocessing, self._crops = preprocessing, crops

    def empty(self, size: int) -> Batch:
        """Returns a batch of padding."""
        width = self._source.label_width
        return {
            "image": _black(size, self._crops, self._preprocessing),
            "label": np.full((size, width), -1, np.int32) if width else np.zeros(size, np.int32),
            "example": np.full(size, -1, np.int32),
            "mask": np.zeros(size, np.bool_),
        }

    def fill(self, batch: Batch, row: int, position: int) -> None:
        """Writes the example at a position, unless it is left out or behind the last."""
        if position >= len(self._source):
            return
        batch["example"][row] = position
        if self._exclude and self._source.file_name(position) in self._exclude:
            return
        image, batch["label"][row] = read_example(self._source, position)
        batch["image"][row] = crops.eval_crops(image, self._preprocessing, self._crops)
        batch["mask"][row] = True


class PredictReader:
    """Images without labels in their order, then padding; see `stream.predict_stream`."""

    def __init__(
        self,
        images: Sequence[AnyImage],
        preprocessing: Preprocessing,
        crops: int,
        on_error: Callable[[int, BadImage], object] | None,
    ):
        self._images, self._on_error = images, on_error
        self._preprocessing, self._crops = preprocessing, crops

    def empty(self, size: int) -> Batch:
        """Returns a batch of padding."""
        return {
            "image": _black(size, self._crops, self._preprocessing),
            "index": np.full(size, -1, np.int32),
        }

    def fill(self, batch: Batch, row: int, position: int) -> None:
        """Writes the image at a position, unless it is bad or behind the last."""
        if position >= len(self._images):
            return
        try:
            pixels = self._read(position)
        except BadImage as error:
            if self._on_error is None:
                raise
            self._on_error(position, error)
            return
        batch["image"][row] = crops.eval_crops(pixels, self._preprocessing, self._crops)
        batch["index"][row] = position

    def _read(self, index: int) -> np.ndarray:
        image, name = self._images[index], f"image {index}"
        try:
            if isinstance(image, (str, os.PathLike)):
                name = os.fspath(image)
                image = read_file(name)
            return decode(image)
        except BadImage as error:
            raise BadImage(f"{name}: {error}") from error


Reader = TrainReader | EvalReader | PredictReader


def read_example(source: Source, example: int) -> tuple[np.ndarray, Label]:
    """Reads and decodes one example.

    Raises:
      BadImage: when it cannot be decoded.
      DataError: when it is not there, or its label is outside the source's classes. Both name it.
    """
    try:
        image, label = source[example]
        image = decode(image)
    except BadImage as error:
        raise BadImage(f"{source.describe(example)}: {error}") from error
    except IndexError as error:
        raise DataError(
            f"the data set says it has {len(source)} examples, but has no number {example}. An "
            "epoch would be too short: prepare it again"
        ) from error
    except OSError as error:
        raise DataError(f"{source.describe(example)}: {error}") from error
    if isinstance(label, np.ndarray):  # multi-label, padded with -1
        inside = label.min() >= -1 and label.max() < source.num_classes
    else:
        inside = 0 <= label < source.num_classes
    if not inside:
        raise DataError(
            f"{source.describe(example)}: label {label} is outside the {source.num_classes} "
            "classes. Does this split have labels?"
        )
    return image, label


def _black(size: int, crops: int, preprocessing: Preprocessing) -> np.ndarray:
    return np.zeros((size, crops, preprocessing.image_size, preprocessing.image_size, 3), np.uint8)


def _generator(seed: int, epoch: int, example: int) -> np.random.Generator:
    """The random numbers of one example in one epoch: a Philox stream of its own, so cheap."""
    key = np.array([seed % 2**64, epoch << 32 | example], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
