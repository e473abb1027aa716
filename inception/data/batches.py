"""Batches that Grain's threads fill: the mechanism of stream.py.

Each thread decodes, crops and resizes images straight into their rows of a batch. About four
batches are in memory at a time, whatever the size of the data set and the number of threads.
"""

import atexit
import contextlib
import math
import threading
import weakref
from collections.abc import Callable, Generator
from typing import Any

import cv2
import grain
import numpy as np

from inception.ops.platforms import cores

Batch = dict[str, np.ndarray]
# Closing a stream, or dropping the last reference to it, ends its threads.
Stream = Generator[Batch, None, None]
# Writes the image at a position into its row of the batch, and returns the row's other fields.
Read = Callable[[int, np.ndarray], dict[str, Any]]

ENDLESS = 2**60  # positions; Grain needs a length
_CHUNK = 16  # crops in a thread's unit of work
_open = weakref.WeakSet[Stream]()


def make_batches(
    read: Read,
    shape: tuple[int, ...],
    padding: Batch,
    *,
    first: int,
    end: int,
    stride: int,
    threads: int,
) -> Stream:
    """Yields batches; row i of batch s holds what `read` gives at position first + s * stride + i.

    A thread's unit of work is several rows, written in place: queueing and stacking single images
    took a fifth of the processor time, and a far larger share of the time that Python's lock was
    held.

    Args:
      read: Reads one position; called from all threads.
      shape: Shape of a batch's images, [rows, ..., height, width, 3].
      padding: Arrays [rows, ...] of the other fields; rows keep these values where nothing is read.
      first: Position of the first batch's first row.
      end: Number of positions; from there on images are black and nothing is read.
      stride: Distance between the positions of two successive batches.
      threads: Number of threads; 0: one for each core that this process may use.
    """
    rows = shape[0]
    threads = threads or cores()
    # Work for every thread within two batches, however small a batch is.
    chunk = max(1, min(_CHUNK // math.prod(shape[1:-3]), 2 * rows // threads))
    chunks = -(-rows // chunk)
    cv2.setNumThreads(1)  # images are processed in parallel, each by one thread
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
    stream = _stream(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1))
    _open.add(stream)
    return stream


def _stream(batches: grain.IterDataset) -> Stream:
    yield from iter(batches)  # so that closing the stream closes the iterator


@atexit.register
def _close() -> None:
    """Ends the threads of streams that a program leaves open, before Grain's modules are gone."""
    for stream in [*_open]:
        with contextlib.suppress(ValueError):  # another thread is waiting in it
            stream.close()
