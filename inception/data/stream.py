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
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterator

import cv2
import grain
from ml_collections import ConfigDict

from inception.data import DataError
from inception.data.readers import Batch, EvalReader, Reader, TrainReader, size_of
from inception.data.sources import Source

_ENDLESS = 2**40  # steps; Grain wants a length
_CHUNK = 16  # crops that a thread makes at a time


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
    reader = TrainReader(config, source)

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
    steps = -(-size_of(source) // (share * process_count))
    reader = EvalReader(config, source)

    def position(step: int, row: int) -> int:
        return (step * process_count + process_index) * share + row

    chunk = max(1, _CHUNK // config.eval.crops)
    return _batches(reader, position, steps, share, chunk, config.data_threads)


def _batches(
    reader: Reader,
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
