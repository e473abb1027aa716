"""Batches as a pure function of (seed, step).

Epoch e visits the examples in a permutation drawn from (seed, e). Of a data set of n examples, the
g-th that a run reads, counted over all its batches, is number g mod n in the order of epoch
g div n: batches run on across the end of an epoch, and every example comes exactly once in each.
Its crop is drawn from (seed, epoch, example). Process p of P takes the p-th slice of every global
batch. Nothing else decides what a batch holds: not where a run was resumed, nor how many processes
or threads there are. (Another version of NumPy may draw other numbers.)

Grain's threads decode, crop and resize, each image to its place in the batch. About four batches
are in memory at a time, whatever the size of the data set and the number of threads.
"""

import atexit
import contextlib
import functools
import itertools
import logging
import math
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Any

import cv2
import grain
import numpy as np
from numpy.random.bit_generator import ISeedSequence

from inception.data import DataError
from inception.data.crops import eval_crops, train_box, train_resize
from inception.data.decode import MAX_PIXELS, BadImage
from inception.data.exclude import Excluded
from inception.data.preprocessing import Preprocessing
from inception.data.readers import as_bad_image, naming, read_example
from inception.data.sources import AnyImage, ArraySource, Label, Source
from inception.ops.platforms import cores

Batch = dict[str, np.ndarray]
# `close` it, or let go of it, to end its threads.
Stream = Generator[Batch, None, None]
# Writes the image at a position into its row of the batch, and returns the row's other fields.
Read = Callable[[int, np.ndarray], dict[str, Any]]

_ENDLESS = 2**60  # examples; Grain wants a length
_CHUNK = 16  # crops that a thread makes at a time
_MOST_SKIPS = 100  # bad records in a row that are still an accident
_open = weakref.WeakSet[Stream]()
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
      source: its examples may be fewer than a batch.
      seed: of the order and the crops.
      image_size: pixels, height and width of a crop.
      batch_size: examples of a global batch.
      augmentation: a name of `crops.AUGMENTATIONS`; what it does on the host.
      on_bad_record: "fail", or "skip": log it and take the next of the permutation.
      max_pixels: of an image as it is stored; a larger one counts as bad.
      threads: that decode; 0: one for each core that this process may use.
      start_step: number of the first batch.
      process_index: this process's place among those that share each batch.
      process_count: how many they are.

    Returns:
      This process's slices of the global batches start_step, start_step + 1, ...,
      b = batch_size / process_count: "image" uint8 [b, size, size, 3], "label" int32 [b],
      "epoch" int32 [b], "example" int32 [b].

    Raises:
      DataError: at once, when batch_size does not divide by process_count or the source is empty
        or multi-label; later, for a label outside the source's classes or a record that is gone.
      BadImage: when a record cannot be decoded and on_bad_record is "fail", or 100 in a row.
    """
    if batch_size % process_count:
        raise DataError(
            f"batch_size={batch_size} cannot be shared by {process_count} processes. Take a "
            f"multiple of {process_count}"
        )
    read = _train_reader(source, seed, augmentation, on_bad_record, max_pixels)
    share = batch_size // process_count
    padding = dict.fromkeys(("label", "epoch", "example"), np.empty(share, np.int32))
    first = start_step * batch_size + process_index * share
    shape = (share, image_size, image_size, 3)
    return _batches(read, shape, padding, first, _ENDLESS, batch_size, threads)


def _train_reader(
    source: Source, seed: int, augmentation: str, on_bad_record: str, max_pixels: int
) -> Read:
    """Reads the example at a position of all epochs one after the other, see `train_stream`."""
    if source.label_width or not len(source):
        raise DataError(
            f"a data set of {len(source)} images, with {source.label_width or 1} labels each, "
            "cannot be trained on: there must be images, with one label each"
        )
    size = len(source)
    attempts = min(size, _MOST_SKIPS) if on_bad_record == "skip" else 1
    skipped = itertools.count(1)

    @functools.lru_cache(maxsize=2)  # threads are on both sides of an epoch's end for a while
    def order(epoch: int) -> np.ndarray:
        return _generator(seed, epoch, _NO_EXAMPLE).permutation(np.arange(size, dtype=np.int32))

    def load(epoch: int, place: int) -> tuple[int, np.random.Generator, np.ndarray, Label]:
        """The example at a place of the epoch's order, or the next one that can be decoded.

        And what drew its box, and pixels in the box.
        """
        for ahead in range(attempts):
            example = int(order(epoch)[(place + ahead) % size])
            rng = _generator(seed, epoch, example)
            choose = functools.partial(train_box, rng, augmentation)
            try:
                return example, rng, *read_example(source, example, choose, max_pixels)
            except BadImage as error:
                if on_bad_record != "skip":
                    raise
                logging.warning("Skipped (%d since this start): %s", next(skipped), error)
        raise BadImage(f"{attempts} records in a row cannot be decoded, up to example {example}")

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

    The arguments are those of `train_stream`, but batch_size counts crops: a global batch has
    batch_size // crops examples, at least 1, rounded up to a multiple of num_devices (and so of
    process_count). `crops` is one of `crops.CROPS`. Every process sees as many batches.

    Returns:
      This process's slices of b examples: "image" uint8 [b, crops, size, size, 3], "label" int32
      [b] (or [b, label_width], padded with -1), "example" int32 [b], "mask" bool [b]. Where the
      mask is False nothing is to be counted: the image is black and the label 0 (-1 in a
      multi-label source). There the example is that of an image which is left out, or -1 in the
      padding of the last batch.

    Raises:
      DataError: for a label outside the source's classes or a record that is gone.
      BadImage: when a record cannot be decoded, for every example counts.
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
    return _batches(read, shape, padding, process_index * share, len(source), total, threads)


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
    """Reads images that need neither labels nor folders, each once and in order.

    They are paths (buckets' too), contents of files, or pixels uint8 [height, width, 1 or 3]; a
    batch has batch_size // crops of them, at least 1. `on_error` is called with the place of an
    image that cannot be decoded or resized, for whatever reason, and the error that names it, from
    any thread and in any order.

    Returns:
      "image" uint8 [b, crops, size, size, 3] and "index" int32 [b], the image's place in `images`.
      It is -1, and the image black, in the padding of the last batch and for a bad image.

    Raises:
      BadImage: when an image cannot be decoded and there is no `on_error`.
      MemoryError: when its pixels do not fit, likewise.
    """

    def read(position: int, row: np.ndarray) -> dict[str, Any]:
        try:
            image, _ = read_example(source, position, max_pixels=max_pixels)
            with naming(source, position):
                row[:] = eval_crops(image, preprocessing, crops)
        except Exception as error:  # no image ends the prediction of the others
            if on_error is None:
                raise
            on_error(position, as_bad_image(error, source.name(position)))
            row[:] = 0
            return {}
        return {"index": position}

    source, share = ArraySource(images, np.zeros(len(images), int)), max(1, batch_size // crops)
    shape = (share, crops, preprocessing.image_size, preprocessing.image_size, 3)
    padding = {"index": np.full(share, -1, np.int32)}
    return _batches(read, shape, padding, 0, len(images), share, threads)


class _Key(ISeedSequence):
    """A Philox key: Philox(key=...) too reads the system's entropy, only to drop it again."""

    def __init__(self, *key: int):
        self._key = np.array(key, np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint64) -> np.ndarray:
        return self._key


def _generator(seed: int, epoch: int, example: int) -> np.random.Generator:
    """The random numbers of one example in one epoch: a Philox stream of its own, so cheap."""
    key = _Key(seed % 2**64, epoch << 32 | example)
    return np.random.Generator(np.random.Philox(key))  # type: ignore[arg-type]  # NumPy's stubs


def _batches(
    read: Read,
    shape: tuple[int, ...],
    padding: Batch,
    first: int,
    end: int,
    stride: int,
    threads: int,
) -> Stream:
    """Batches whose row i in step s is what stands at position first + s * stride + i.

    A thread's unit of work is some rows, which it writes where they stay: to queue single images
    and to stack them took a fifth of the processor, and of Python's lock far more than that.
    Images have `shape`. From position `end` on they are black; fields that are not read are those
    of `padding`.
    """
    rows = shape[0]
    threads = threads or cores()
    # Work for every thread within two batches, however small a batch is.
    chunk = max(1, min(_CHUNK // math.prod(shape[1:-3]), 2 * rows // threads))
    chunks = -(-rows // chunk)
    cv2.setNumThreads(1)  # the parallelism is over images
    unfinished: dict[int, Batch] = {}
    lock = threading.Lock()

    def work(index: int) -> int:
        step, start = index // chunks, index % chunks * chunk
        with lock:
            if step not in unfinished:
                others = {name: array.copy() for name, array in padding.items()}
                unfinished[step] = {"image": np.empty(shape, np.uint8), **others}
            batch = unfinished[step]
        for row in range(start, min(start + chunk, rows)):
            position = first + step * stride + row
            if position >= end:
                batch["image"][row] = 0
                continue
            for name, value in read(position, batch["image"][row]).items():
                batch[name][row] = value
        return step

    # A whole batch ahead, so that no thread waits for another to finish the one before; and no more
    # than two, however many threads there are.
    ahead = min(max(chunks, 2 * threads), 2 * chunks)
    options = grain.ReadOptions(num_threads=min(threads, ahead), prefetch_buffer_size=ahead)
    steps = grain.MapDataset.range(-(-end // stride) * chunks)
    done = steps.map(work).to_iter_dataset(options)
    batches = done.batch(chunks, batch_fn=lambda steps: unfinished.pop(steps[0]))
    prefetched = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1)
    stream = _hand_on(prefetched)
    _open.add(stream)
    return stream


def _hand_on(batches: grain.IterDataset) -> Stream:
    yield from iter(batches)  # whose `close` is then the stream's


@atexit.register
def _close() -> None:
    """Ends the threads of streams that a program leaves open: later Grain's modules are gone."""
    for stream in [*_open]:
        with contextlib.suppress(ValueError):  # another thread waits in it
            stream.close()
