"""From files to moments: any sizes, any batch, few images or many, and what goes wrong there."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from PIL import Image

from inception.fid import pipeline
from inception.fid.bridge import UserError
from inception.fid.extract import Extractor
from inception.fid.frechet import distance
from inception.fid.images import Images, Picture, open_images
from inception.fid.pipeline import measure
from tests.fid.networks import difference, loaded, pictures

SIZES = ((64, 80), (64, 80), (299, 299), (31, 129), (64, 80), (200, 130), (64, 80))


@pytest.fixture(scope="module")
def extract():
    return Extractor(loaded(), layers=("pooled", "spatial", "logits"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of mixed sizes."""
    folder = tmp_path_factory.mktemp("mixed")
    for number, size in enumerate(SIZES):
        Image.fromarray(pictures(1, *size, number)[0]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def summary(extract, folder):
    return measure(open_images(str(folder)), extract, keep=["pooled", "logits"], batch_size=4)


@pytest.mark.rounding
def test_images_of_mixed_sizes_are_in_order_and_as_alone(extract, summary):
    for layer in ("pooled", "logits"):
        alone = [
            extract.features(pictures(1, *size, number))[layer][0]
            for number, size in enumerate(SIZES)
        ]
        assert difference(summary.features[layer], np.stack(alone)) <= 2e-6
    assert summary.features.keys() == {"pooled", "logits"}
    assert summary.statistics.keys() == {"pooled", "spatial"}
    assert (summary.count, summary.formats, summary.deep) == (7, ("PNG",), 0)
    assert set(summary.sizes) == set(SIZES)
    assert summary.statistics["spatial"].origin == extract.origin("spatial")


@pytest.mark.rounding
def test_nothing_depends_on_the_batch(extract, folder, summary):
    again = measure(open_images(str(folder)), extract, keep=["pooled"], batch_size=7)
    assert difference(again.features["pooled"], summary.features["pooled"]) <= 2e-6
    for layer, each in summary.statistics.items():
        scale = np.trace(each.covariance)
        assert distance(each, again.statistics[layer]) < 1e-6 * scale


@pytest.mark.rounding
def test_many_images_are_summed_on_the_devices(extract, folder, summary, monkeypatch):
    """To the same moments; their features are kept only where they are wanted."""
    monkeypatch.setattr(pipeline, "FEW", 3)
    many = measure(open_images(str(folder)), extract, keep=["logits"], batch_size=4)
    assert many.features.keys() == {"logits"}
    for layer, each in summary.statistics.items():
        found = many.statistics[layer]
        assert found.centered is None
        assert (found.count, found.origin) == (each.count, each.origin)
        assert difference(found.mean, each.mean) <= 2e-6
        assert difference(found.covariance, each.covariance) <= 2e-6
    # Seven images span six dimensions: rounding in the others does not count.
    few, many = (side.statistics["pooled"] for side in (summary, many))
    assert many.factor.shape == (108, 6)
    assert distance(many, few) < 1e-6 * np.trace(few.covariance)


class _Pixels(Extractor):
    """Features are pixels, so that no network is compiled."""

    sizes = {"pooled": 300}  # noqa: RUF012

    def __init__(self, extract):
        self.settings, self.variables = extract.settings, extract.variables

    def features_of_inputs(self, inputs):
        return {"pooled": inputs.reshape(len(inputs), -1)[:, :300]}


def test_memory_does_not_grow_with_the_number_of_images(extract, monkeypatch):
    """Four times as many images need less than two batches of pixels more."""
    monkeypatch.setattr(pipeline, "FEW", 10)
    peaks = []

    def read(index):
        return Picture(np.full((256, 256, 3), index % 251, np.uint8), "")

    for count in (40, 80, 321):  # the first compiles; the last ends with a group that is not full
        items = ((str(index), partial(read, index)) for index in range(count))
        images = Images("fake", count, items, lambda: None)
        tracemalloc.start()
        found = measure(images, _Pixels(extract), batch_size=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.count, found.features) == (count, {})
        expected = ((np.arange(count) % 251).mean() - 128) / 128
        np.testing.assert_allclose(found.statistics["pooled"].mean, expected, rtol=1e-5)
    assert peaks[2] - peaks[1] < 2 * 4 * 256 * 256 * 3, peaks  # of the 60 batches more, two


def test_a_number_of_images_is_drawn_with_a_seed(extract, folder, summary):
    def drawn(seed):
        images = open_images(str(folder))
        found = measure(images, extract, keep=["pooled"], batch_size=4, num=3, seed=seed)
        rows = found.features["pooled"]
        distances = np.abs(rows[:, None] - summary.features["pooled"]).max(axis=2)
        return found.count, distances.argmin(axis=1).tolist()

    first = drawn(0)
    assert first == drawn(0) != drawn(1)
    count, chosen = first
    assert count == 3
    assert chosen == sorted(set(chosen))
    with pytest.raises(UserError, match="has 7 images, fewer than the 8 wanted"):
        measure(open_images(str(folder)), extract, num=8)


def test_16_bit_images_are_counted(extract, tmp_path):
    for number in range(2):
        pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * (number + 50)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    assert measure(open_images(str(tmp_path)), extract, batch_size=4).deep == 2


@pytest.mark.parametrize("count", [1, 3])
def test_one_image_or_a_damaged_one_is_named(count, extract, tmp_path):
    for number in range(count):
        Image.fromarray(pictures(1, 8, 8, number)[0]).save(tmp_path / f"{number}.png")
    (tmp_path / f"{count - 1}.png").write_bytes(b"no image")
    message = "1 image: a covariance needs" if count == 1 else r"2.png: not a whole image"
    with pytest.raises(UserError, match=message):
        measure(open_images(str(tmp_path)), extract)


def test_a_file_that_is_gone_or_new_is_said_to_have_changed(extract, tmp_path):
    for number in range(3):
        Image.fromarray(pictures(1, 8, 8, number)[0]).save(tmp_path / f"{number}.png")
    images = open_images(str(tmp_path))
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"1.png changed while it was read"):
        measure(images, extract, batch_size=4)
    images = open_images(str(tmp_path))
    Image.fromarray(pictures(1, 9, 9, 5)[0]).save(tmp_path / "2.png")
    with pytest.raises(UserError, match=r"2.png changed while it was read"):
        measure(images, extract, batch_size=4)


def test_weights_that_are_not_finite_are_said_so(folder):
    model, variables, rest = loaded()
    params = {
        **variables["params"],
        "Conv2d_1a_3x3": {"conv": {"kernel": np.full((3, 3, 3, 16), np.nan)}},
    }
    params["Conv2d_1a_3x3"]["bn"] = variables["params"]["Conv2d_1a_3x3"]["bn"]
    extract = Extractor((model, {**variables, "params": params}, rest))
    with pytest.raises(UserError, match="features are not finite"):
        measure(open_images(str(folder)), extract, batch_size=4)
