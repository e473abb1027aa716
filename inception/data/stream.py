"""Batches as a pure function of (seed, step).

Epoch e visits the examples in a permutation drawn from (seed, e). Positions count examples over all
batches: in a data set of n examples, position g is number g mod n in the order of epoch g div n. So
batches continue across the end of an epoch, and each epoch has every example exactly once. An
example's crop is drawn from (seed, epoch, example). Process p of P reads the p-th slice of every
global batch. Nothing else decides what a batch holds: neither where a run was resumed, nor the
number of processes or threads. (Another version of NumPy may draw other numbers.)
"""

import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from inception.data import DataError
from inception.data.batches import ENDLESS, Read, Stream, make_batches
from inception.data.crops import eval_crops, train_box, train_resize
from inception.data.decode import MAX_PIXELS, BadImage
from inception.data.exclude import Excluded
from inception.data.preprocessing import Preprocessing
from inception.data.readers import as_bad_image, naming, read_example
from inception.data.sources import AnyImage, ArraySource, Label, Source

_MAX_SKIPS = 100  # bad records in a row, before something else must be wrong
_NO_EXAMPLE = 2**32 - 1  # in place of an example's number in the key of an epoch's permutation


def train_stream(
    source: Source,
    *,
    seed: int,
    image_size: int,
    batch_size: int,
    augmentation: str = "inception",
    on_bad_record: str = "fail",
    max_pixels: int = MAX_PIXELS,
    threads: int = 0,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Stream:
    """Reads training batches without end.

    Args:
      source: Examples, possibly fewer than a batch.
      seed: Seed of the order and the crops.
      image_size: Height and width of a crop, pixels.
      batch_size: Number of examples in a global batch.
      augmentation: A name in `crops.AUGMENTATIONS`, of which this does the host's part.
      on_bad_record: "fail", or "skip": log a bad record and take the next of the permutation.
      max_pixels: Largest number of pixels of an image as it is stored; a larger one is bad.
      threads: Number of decoding threads; 0: one for each core that this process may use.
      start_step: Number of the first batch.
      process_index: Index of this process among those that share each batch.
      process_count: Number of these processes.

    Returns:
      This process's slices of the global batches start_step, start_step + 1, ...,
      b = batch_size / process_count: "image" uint8 [b, size, size, 3], "label" int32 [b],
      "epoch" int32 [b], "example" int32 [b].

    Raises:
      DataError: at once if batch_size is not divisible by process_count, or the source is empty or
        multi-label; later for a label outside the source's classes or a missing record.
      BadImage: If a record cannot be decoded and on_bad_record is "fail", or 100 in a row.
    """
    if batch_size % process_count:
        raise DataError(
            f"batch_size={batch_size} is not divisible by {process_count} processes. Take a "
            f"multiple of {process_count}"
        )
    read = _train_reader(source, seed, augmentation, on_bad_record, max_pixels)
    share = batch_size // process_count
    padding = dict.fromkeys(("label", "epoch", "example"), np.empty(share, np.int32))
    first = start_step * batch_size + process_index * share
    shape = (share, image_size, image_size, 3)
    return make_batches(
        read, shape, padding, first=first, end=ENDLESS, stride=batch_size, threads=threads
    )


def _train_reader(
    source: Source, seed: int, augmentation: str, on_bad_record: str, max_pixels: int
) -> Read:
    """Reads the example at a position that counts over all epochs, see the module."""
    if source.label_width or not len(source):
        raise DataError(
            f"a data set of {len(source)} images with up to {source.label_width or 1} labels each "
            "cannot be trained on: training needs images with one label each"
        )
    size = len(source)
    attempts = min(size, _MAX_SKIPS) if on_bad_record == "skip" else 1
    skipped = itertools.count(1)

    @functools.lru_cache(maxsize=2)  # around an epoch's end threads read from two epochs
    def order(epoch: int) -> np.ndarray:
        return _generator(seed, epoch, _NO_EXAMPLE).permutation(np.arange(size, dtype=np.int32))

    def load(epoch: int, place: int) -> tuple[int, np.random.Generator, np.ndarray, Label]:
        """The example at a place of the epoch's order, or the next one that can be decoded.

        Returns its number, the generator that drew its box, the pixels in the box, and the label.
        """
        for ahead in range(attempts):
            example = int(order(epoch)[(place + ahead) % size])
            rng = _generator(seed, epoch, example)
            choose_box = functools.partial(train_box, rng, augmentation)
            try:
                return example, rng, *read_example(source, example, choose_box, max_pixels)
            except BadImage as error:
                if on_bad_record != "skip":
                    raise
                logging.warning("Skipped (%d since this start): %s", next(skipped), error)
        raise BadImage(
            f"{attempts} records in a row cannot be decoded; the last one is example {example}"
        )

    def read(position: int, row: np.ndarray) -> dict[str, Any]:
        epoch, place = divmod(position, size)
        example, rng, image, label = load(epoch, place)
        with naming(source, example):
            train_resize(rng, image, augmentation, out=row)
        return {"label": label, "epoch": epoch, "example": example}

    return read


def eval_stream(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    crops: int = 1,
    exclude: Excluded | None = None,
    max_pixels: int = MAX_PIXELS,
    threads: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_devices: int = 1,
) -> Stream:
    """Reads every example exactly once over all processes, in the source's order.

    Every process gets the same number of batches.

    Args:
      source: Examples.
      preprocessing: Crop and size of the images.
      batch_size: Number of crops in a global batch, which so has batch_size // crops examples, at
        least 1, rounded up to a multiple of num_devices (and so of process_count).
      crops: Crops of each image, one of `crops.CROPS`.
      exclude: Images that are left out.
      max_pixels: See `train_stream`.
      threads: See `train_stream`.
      process_index: See `train_stream`.
      process_count: See `train_stream`.
      num_devices: Number of devices that share a global batch.

    Returns:
      This process's slices of b examples: "image" uint8 [b, crops, size, size, 3], "label" int32
      [b] (or [b, label_width], padded with -1), "example" int32 [b], "mask" bool [b]. Rows whose
      mask is False must not be counted: the image is black and the label 0 (-1 in a multi-label
      source). Their example is the number of an excluded image, or -1 in the padding of the last
      batch.

    Raises:
      DataError: For a label outside the source's classes or a missing record.
      BadImage: If a record cannot be decoded, because every example counts.
    """

    def read(position: int, row: np.ndarray) -> dict[str, Any]:
        if exclude and source.name(position) in exclude:
            row[:] = 0
            return {"example": position}
        image, label = read_example(source, position, max_pixels=max_pixels)
        with naming(source, position):
            row[:] = eval_crops(image, preprocessing, crops)
        return {"label": label, "example": position, "mask": True}

    devices = max(num_devices, process_count)
    total = -(-max(1, batch_size // crops) // devices) * devices
    share, width = total // process_count, source.label_width
    padding = {
        "label": np.full((share, width), -1, np.int32) if width else np.zeros(share, np.int32),
        "example": np.full(share, -1, np.int32),
        "mask": np.zeros(share, np.bool_),
    }
    shape = (share, crops, preprocessing.image_size, preprocessing.image_size, 3)
    first, end = process_index * share, len(source)
    return make_batches(read, shape, padding, first=first, end=end, stride=total, threads=threads)


def predict_stream(
    images: Sequence[AnyImage],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    crops: int = 1,
    max_pixels: int = MAX_PIXELS,
    threads: int = 0,
    on_error: Callable[[int, BadImage], object] | None = None,
) -> Stream:
    """Reads images without labels, each once and in order.

    Args:
      images: Paths (also in buckets), contents of files, or pixels uint8 [height, width, 1 or 3].
      preprocessing: Crop and size of the images.
      batch_size: Number of crops in a batch, which so has batch_size // crops images, at least 1.
      crops: Crops of each image, one of `crops.CROPS`.
      max_pixels: See `train_stream`.
      threads: See `train_stream`.
      on_error: Called with the index of an image that cannot be decoded or resized, whatever the
        reason, and an error that names it; from any thread and in any order.

    Returns:
      "image" uint8 [b, crops, size, size, 3] and "index" int32 [b], the image's index in `images`;
      -1, and a black image, for a bad image and in the padding of the last batch.

    Raises:
      BadImage: If an image cannot be decoded and there is no `on_error`.
      MemoryError: If its pixels do not fit into memory and there is no `on_error`.
    """

    def read(position: int, row: np.ndarray) -> dict[str, Any]:
        try:
            image, _ = read_example(source, position, max_pixels=max_pixels)
            with naming(source, position):
                row[:] = eval_crops(image, preprocessing, crops)
        except Exception as error:  # one image must not end the prediction of the others
            if on_error is None:
                raise
            on_error(position, as_bad_image(error, source.name(position)))
            row[:] = 0
            return {}
        return {"index": position}

    source, share = ArraySource(images, np.zeros(len(images), int)), max(1, batch_size // crops)
    shape = (share, crops, preprocessing.image_size, preprocessing.image_size, 3)
    padding = {"index": np.full(share, -1, np.int32)}
    return make_batches(
        read, shape, padding, first=0, end=len(images), stride=share, threads=threads
    )


class _Key(ISeedSequence):
    """A Philox key, without the system's entropy, which Philox(key=...) reads and discards."""

    def __init__(self, *key: int):
        self._key = np.array(key, np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint64) -> np.ndarray:
        return self._key


def _generator(seed: int, epoch: int, example: int) -> np.random.Generator:
    """The random numbers of one example in one epoch, from a Philox stream: cheap to create."""
    key = _Key(seed % 2**64, epoch << 32 | example)
    return np.random.Generator(np.random.Philox(key))  # type: ignore[arg-type]  # NumPy's stubs
