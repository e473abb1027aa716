"""benchmarks.input: the files it makes, its pipelines and its tables."""

import itertools
import os

import numpy as np
import pandas as pd
import pytest

from benchmarks import input as benchmark
from inception.data.decode import decode

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    benchmark.write_photographs(folder, 12)
    return folder


def test_photographs_differ_and_have_one_size(root):
    images = [decode(path.read_bytes()) for path in sorted(root.glob("train/*/*.jpg"))]
    assert {image.shape for image in images} == {(375, 500, 3)}
    assert len({image.tobytes() for image in images}) == 12
    assert min(image.std() for image in images) > 10


@pytest.mark.parametrize("pipeline", [benchmark.tf_data, benchmark.pillow])
def test_pipelines_make_batches_of_the_same_boxes(root, pipeline):
    if pipeline is benchmark.tf_data:
        pytest.importorskip("tensorflow")
    images = np.concatenate(list(itertools.islice(pipeline(root, 64), 2)))
    assert images.shape == (64, 64, 64, 3)
    assert images.dtype == np.uint8
    # The same boxes of the same files, resized with and without antialiasing.
    others = np.concatenate(list(itertools.islice(benchmark.pillow(root, 64), 2)))
    assert np.abs(images.astype(float).mean((1, 2)) - others.mean((1, 2))).max() < 6


def test_ours_is_the_training_stream(root):
    batch = next(benchmark.ours(root, 64, "inception_fast"))
    assert batch["image"].shape == (benchmark.BATCH, 64, 64, 3)


def test_measure_counts_images(root):
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    wall, processor = benchmark.measure(benchmark.pillow, (root, 32), 1, 0.2)
    if allowed:
        os.sched_setaffinity(0, allowed)
    assert 10 < wall <= processor * 1.1


@pytest.mark.slow
def test_the_tables(root):
    table = benchmark.compare(root, 75, 1.0)
    assert list(table) == ["images/s", "per core-second", "ratio"]
    assert len(table) == 5
    assert table.ratio["tf.data, decode_and_crop"] == 1
    table = benchmark.scale(root, 75, [1, 2], 1.0)
    assert list(table.index) == ["1 threads", "2 threads", "1 processes", "2 processes"]
    assert table["of linear"]["1 threads"] == 1


def test_a_table_is_whole_images_and_hundredths_of_ratios():
    rates = pd.DataFrame(
        {"images/s": [912.4, np.nan], "ratio": [1.0, np.nan]}, index=["ours", "theirs"]
    )
    ours, theirs = benchmark.format_table(rates.rename_axis("one core")).splitlines()[2:]
    assert ours.split() == ["ours", "912", "1.00"]
    assert theirs.split() == ["theirs", "not", "installed", "not", "installed"]


def test_rounds_take_turns(root):
    rates = benchmark.take_turns({"a": (benchmark.pillow, (root, 32), 1)}, 0.1)
    assert rates.columns.tolist() == [("wall", "a"), ("core", "a")]
    assert len(rates) == benchmark.ROUNDS
    assert (rates > 10).all(axis=None)


def test_processes_make_batches_of_the_same_files(root):
    whole = next(benchmark.ours(root, 64, "none"))["image"]
    batches = itertools.islice(benchmark.in_processes(root, 64, "none", 2), 3)
    files = {image.tobytes() for image in whole}
    for batch in batches:
        assert {image.tobytes() for image in batch} == files
