"""Input pipelines make the same kind of batch."""

import itertools

import numpy as np
import pytest

from benchmarks import inputs
from benchmarks.cases import OURS, Case
from benchmarks.photographs import write_photographs
from inception.config import flatten, load

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 12)
    return folder


@pytest.mark.parametrize("pipeline", [inputs.tf_data, inputs.pillow])
def test_pipelines_make_batches_of_the_same_boxes(root, pipeline):
    if pipeline is inputs.tf_data:
        pytest.importorskip("tensorflow")
    images = np.concatenate(list(itertools.islice(pipeline(root, 64, 32, 1), 2)))
    assert images.shape == (64, 64, 64, 3)
    assert images.dtype == np.uint8
    # The same boxes of the same files, resized with and without antialiasing.
    others = np.concatenate(list(itertools.islice(inputs.pillow(root, 64, 32, 1), 2)))
    assert np.abs(images.astype(float).mean((1, 2)) - others.mean((1, 2))).max() < 6


def test_ours_is_the_training_stream(root):
    overrides = [f"data_dir={root}", "image_size=75", "batch_size=8"]
    contender = inputs.data(Case(OURS, "data", 1, flatten(load("configs/v3.py", overrides))))
    assert contender.step()["image"].shape == (8, 75, 75, 3)
