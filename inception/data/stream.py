"""Batches as a pure function of (seed, step).

Epoch e visits the examples in a permutation drawn from (seed, e). Of a data set of n examples, the
g-th that a run reads, counted over all its batches, is number g mod n in the order of epoch
g div n: batches run on across the end of an epoch, and every example comes exactly once in each.
Its crop is drawn from (seed, epoch, example). Process p of P takes the p-th slice of every global
batch. Nothing else decides what a batch holds: not where a run was resumed, nor how many processes
or threads there are. (Another version of NumPy may draw other numbers.)

Grain's threads decode, crop and resize, each image to its place in the batch. About four batches
are in memory at a time, whatever the size of the data set.
"""

import atexit
import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import cv2
import grain
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from inception.data import DataError, crops
from inception.data.decode import BadImage, decode
from inception.data.exclude import Excluded
from inception.data.sources import Source

Batch = dict[str, np.ndarray]

_ENDLESS = 2**40  # steps; Grain wants a length
_CHUNK = 16  # crops that a thread makes at a time
_NO_EXAMPLE = 2**32 - 1  # in place of an example's number in the key of an epoch's permutation
_MOST_SKIPS = 100  # bad records in a row that are still an accident


def train_stream(
    config: ConfigDict,
    source: Source,
    *,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Reads training batches without end.

    Args:
      config: seed, image_size, augmentation, batch_size, on_bad_record and data_threads are read.
      source: what is read; its examples may be fewer than a batch.
      start_step: number of the first batch.
      process_index: this process's place among those that share each batch.
      process_count: how many they are.

    Returns:
      An iterator (a generator: `close` it, or let go of it, to end its threads) over this process's
      slice of the global batches start_step, start_step + 1, ..., b = batch_size / process_count:
      "image" uint8 [b, size, size, 3], "label" int32 [b], "epoch" int32 [b], "example" int32 [b].

    Raises:
      DataError: at once, when batch_size does not divide by process_count or the source is empty
        or multi-label; later, for a label outside the source's classes or a record that is not
        there any more.
      BadImage: when a record cannot be decoded and on_bad_record is 'fail', or 100 in a row.
    """
    if config.batch_size % process_count:
        raise DataError(
            f"config.batch_size is {config.batch_size}, which {process_count} processes cannot "
            f"share; take a multiple of {process_count}"
        )
    if source.label_width:
        raise DataError("a multi-label data set can be evaluated, not trained on")
    share = config.batch_size // process_count
    reader = _TrainReader(config, source)

    def position(step: int, row: int) -> int:
        return (start_step + step) * config.batch_size + process_index * share + row

    return _batches(reader, position, _ENDLESS, share, _CHUNK, config.data_threads)


def eval_stream(
    config: ConfigDict,
    source: Source,
    *,
    process_index: int = 0,
    process_count: int = 1,
    num_devices: int = 1,
) -> Iterator[Batch]:
    """Reads every example exactly once over all processes, in the source's order.

    A global batch has eval.batch_size // crops examples, at least 1, rounded up to a multiple of
    num_devices; every process sees as many batches.

    Args:
      config: image_size, data_threads and eval.* but for split and every_epochs are read.
      source: what is read.
      process_index: this process's place among those that share each batch.
      process_count: how many they are.
      num_devices: that a global batch is split over, a multiple of process_count.

    Returns:
      An iterator over this process's slices of b examples: "image" uint8 [b, crops, size, size, 3],
      "label" int32 [b] (or [b, label_width], padded with -1), "example" int32 [b], "mask" bool [b].
      Where the mask is False nothing is to be counted: the image is black and the label 0 (-1 in a
      multi-label source). There the example is that of an image which config.eval.exclude leaves
      out, or -1 in the padding of the last batch.

    Raises:
      DataError: at once for an empty source; later for a label outside the source's classes or a
        record that is not there any more.
      BadImage: when a record cannot be decoded, whatever on_bad_record says, for every example
        counts.
    """
    devices = max(num_devices, process_count)
    total = max(1, config.eval.batch_size // config.eval.crops)
    share = -(-total // devices) * devices // process_count
    steps = -(-_size(source) // (share * process_count))
    reader = _EvalReader(config, source)

    def position(step: int, row: int) -> int:
        return (step * process_count + process_index) * share + row

    chunk = max(1, _CHUNK // config.eval.crops)
    return _batches(reader, position, steps, share, chunk, config.data_threads)


class _Reader(Protocol):
    """Writes examples into batches."""

    def empty(self, size: int) -> Batch:
        """Returns room for a batch of `size` examples."""
        ...

    def fill(self, batch: Batch, row: int, position: int) -> None:
        """Writes the example at a position of the run into a row of each array."""
        ...


def _batches(
    reader: _Reader,
    position: Callable[[int, int], int],
    steps: int,
    share: int,
    chunk: int,
    threads: int,
) -> Generator[Batch, None, None]:
    """Batches of `share` examples, of which row i of step s is the one at position(s, i).

    A thread's unit of work is `chunk` rows, which it writes where they stay: to queue single images
    and to stack them took a fifth of the processor, and of Python's lock far more than that.
    """
    chunks = -(-share // chunk)
    threads = threads or os.cpu_count() or 1
    cv2.setNumThreads(1)  # the parallelism is over images
    unfinished: dict[int, Batch] = {}
    lock = threading.Lock()

    def work(index: int) -> int:
        step, first = index // chunks, index % chunks * chunk
        with lock:
            if step not in unfinished:
                unfinished[step] = reader.empty(share)
            batch = unfinished[step]
        for row in range(first, min(first + chunk, share)):
            reader.fill(batch, row, position(step, row))
        return step

    # A whole batch ahead, so that no thread waits for another to finish the one before.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(chunks, 2 * threads))
    done = grain.MapDataset.range(steps * chunks).map(work).to_iter_dataset(options)
    batches = done.batch(chunks, batch_fn=lambda steps: unfinished.pop(steps[0]))
    prefetched = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1)
    stream = _closing(iter(prefetched))
    _open.add(stream)
    return stream


def _closing(iterator: grain.DatasetIterator) -> Generator[Batch, None, None]:
    """Ends Grain's threads with the generator."""
    try:
        yield from iterator
    finally:
        iterator.close()


_open: weakref.WeakSet[Generator] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Closes streams while Grain still can: later, Python has taken its modules apart."""
    for stream in list(_open):
        with contextlib.suppress(ValueError):  # a thread is in it, and ends with the program
            stream.close()


class _TrainReader:
    """Examples in the order of the epochs, cropped at random."""

    def __init__(self, config: ConfigDict, source: Source):
        self._source, self._size = source, _size(source)
        self._seed = config.seed
        self._image_size, self._augmentation = config.image_size, config.augmentation
        self._skip = config.on_bad_record == "skip"
        self._skipped, self._lock = 0, threading.Lock()
        # Two, because threads are on both sides of the end of an epoch for a while.
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    def empty(self, size: int) -> Batch:
        return {
            "image": np.empty((size, self._image_size, self._image_size, 3), np.uint8),
            **{name: np.empty(size, np.int32) for name in ("label", "epoch", "example")},
        }

    def fill(self, batch: Batch, row: int, position: int) -> None:
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
            logging.warning("Skipped (%d so far in this run): %s", self._skipped, error)


class _EvalReader:
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


def _size(source: Source) -> int:
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
