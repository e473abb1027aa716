"""The tables of names: every tensor once, both directions."""

import numpy as np
import pytest

from inception import Inception
from inception.weights import SOURCES, names
from inception.weights.pretrained import shapes_of


@pytest.fixture(scope="module")
def shapes():
    return shapes_of(Inception(7, batch_norm_scale=True))


def test_our_paths_are_the_networks(shapes):
    kernels = {name for name in shapes if name.endswith("conv/kernel")}
    assert kernels == {f"params/{path}/conv/kernel" for path in names.CONVOLUTIONS}


def test_keras_3_numbers_every_convolution_once():
    assert sorted(names.KERAS3_PLACES) == list(range(94))


@pytest.mark.parametrize("source", SOURCES)
def test_every_tensor_has_a_name_of_its_own(source, shapes):
    naming = SOURCES[source].naming
    ours = [name for name in shapes if naming.aux_head or "AuxLogits" not in name]
    table = names.table(naming, ours)
    assert list(table) == ours
    assert len(set(table.values())) == len(ours)


@pytest.mark.parametrize("source", ["torchvision", "keras", "slim", "tensorflow-inception"])
def test_layouts_turn_around(source, shapes):
    naming = SOURCES[source].naming
    for name in ("params/Mixed_6b/branch7x7_2/conv/kernel", *names.KERAS.heads):
        array = np.arange(np.prod(shapes[name])).reshape(shapes[name])
        theirs = names.to_source(naming, name, array)
        np.testing.assert_array_equal(names.to_ours(naming, name, theirs), array)


def test_quirks_of_slims_and_researchs_names():
    """Read off the released code; tests/tensorflow_oracle.py makes them all by their scopes."""
    slim, research = names.SLIM.convolutions, names.RESEARCH.convolutions
    assert slim["Mixed_5c/branch5x5_2"] == "InceptionV3/Mixed_5c/Branch_1/Conv_1_0c_5x5"
    assert slim["Mixed_6a/branch3x3"] == "InceptionV3/Mixed_6a/Branch_0/Conv2d_1a_1x1"
    assert slim["Mixed_7b/branch3x3_2b"] == "InceptionV3/Mixed_7b/Branch_1/Conv2d_0b_3x1"
    assert slim["Mixed_7c/branch3x3_2b"] == "InceptionV3/Mixed_7c/Branch_1/Conv2d_0c_3x1"
    assert research["Mixed_7a/branch3x3_2"] == "mixed_17x17x1280a/branch3x3/Conv_1"
    assert research["AuxLogits/conv0"] == "aux_logits/proj"
