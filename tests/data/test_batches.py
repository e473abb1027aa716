"""Batches: what is where in them, and that threads and memory are bounded and end."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from sklearn.datasets import load_sample_images

from inception.data import batches
from inception.data.sources import ArraySource
from inception.data.stream import train_stream


def stream(read=lambda position, row: {"position": position}, rows=4, **changes):
    """Batches of `rows` black images and the positions that were read."""
    padding = {"position": np.full(rows, -1, np.int32)}
    arguments = {"first": 0, "end": 2**60, "stride": rows, "threads": 2, **changes}
    return batches.make_batches(read, (rows, 1, 8, 8, 3), padding, **arguments)


@pytest.mark.parametrize("threads", [1, 5])
def test_positions_are_where_they_belong_and_padding_is_black(threads):
    def read(position, row):
        row[:] = 255
        return {"position": position}

    found = [*stream(read, first=4, stride=8, end=22, threads=threads)]
    positions = np.stack([batch["position"] for batch in found])
    np.testing.assert_array_equal(positions, [[4, 5, 6, 7], [12, 13, 14, 15], [20, 21, -1, -1]])
    for batch in found:
        images = batch["image"].reshape(4, -1)
        np.testing.assert_array_equal(images.min(axis=1), 255 * (batch["position"] >= 0))
        np.testing.assert_array_equal(images.max(axis=1), images.min(axis=1))


def test_closing_and_abandoning_end_the_threads():
    before = threading.active_count()
    for _ in range(3):
        closed = stream()
        next(closed)
        closed.close()
        abandoned = stream()
        next(abandoned)
        del abandoned
    for thread in threading.enumerate():
        if thread.name.startswith("grain"):
            thread.join(5)
    assert threading.active_count() <= before


OPEN = """
import numpy as np
from inception.data.sources import ArraySource
from inception.data.stream import train_stream

source = ArraySource(np.zeros((9, 40, 40, 3), np.uint8), np.zeros(9, int))
stream = train_stream(source, seed=0, image_size=32, batch_size=64, threads=2)
#
print("done", flush=True)
"""
HELD = {
    "unnamed": "next(stream); del stream",
    "named": "next(stream)",
    "wrapped": "outer = (batch for batch in stream); next(outer)",
    "not begun": "",
}


@pytest.mark.parametrize("program", HELD)
def test_a_program_can_end_with_a_stream_open(program):
    begin, end = OPEN.split("#")
    code = [sys.executable, "-c", begin + HELD[program] + end]
    root = Path(__file__).parents[2]
    result = subprocess.run(code, cwd=root, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("rows", [8, 48])
def test_many_threads_hold_no_more_batches(rows):
    """One that was handed out, and those ahead of it: as many images are read as fill them."""
    read = []
    opened = stream(lambda position, row: read.append(position) or {}, rows, threads=64)
    for _ in range(3):
        next(opened)
    before = -1
    while before < len(read):  # until nothing more is read ahead
        before = len(read)
        time.sleep(0.5)
    opened.close()
    assert 3 * rows < len(read) <= (2 + 5) * rows


def test_threads_are_as_many_as_the_cores_of_this_process(monkeypatch):
    monkeypatch.setattr(batches, "cores", lambda: 1)
    seen = set()
    opened = stream(lambda position, row: seen.add(threading.get_ident()) or {}, threads=0)
    for _ in range(3):
        next(opened)
    opened.close()
    assert len(seen) == 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_over_an_epoch():
    """5,000 examples of 600 kB decoded: an epoch held in memory would be 3 GB."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    image = np.ascontiguousarray(load_sample_images().images[0][:400, :500])
    file = simplejpeg.encode_jpeg(image, quality=50)
    source = ArraySource([file] * 5000, np.zeros(5000, int))
    opened = train_stream(source, seed=0, image_size=128, batch_size=50, threads=2)
    sizes = []
    for _ in range(100):
        next(opened)
        sizes.append(resident())
    opened.close()
    assert max(sizes[50:]) - max(sizes[20:50]) < 20e6
