"""python -m inception.predict --output: any layer, streamed to a file that NumPy reads."""

import tracemalloc

import numpy as np
import pytest
import skimage.data
from PIL import Image

from inception import command_line
from inception.data.preprocessing import Preprocessing
from inception.errors import UserError
from inception.predict import features
from inception.predict.__main__ import main
from inception.predict.predictor import Predictor
from inception.weights import Pretrained, save
from tests.predict.test_predictor import MODEL, make_variables

WHOLE = Preprocessing(75, method="resize")
COUNT = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, and images of which the third cannot be read."""
    folder = tmp_path_factory.mktemp("features")
    save(folder / "weights", Pretrained(MODEL, make_variables(MODEL), WHOLE, (), "keras", ""))
    (folder / "images").mkdir()
    for number in range(COUNT):
        pixels = np.roll(skimage.data.chelsea(), 50 * number, axis=1)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    (folder / "images" / "2.png").write_bytes(b"no image")
    return folder


def _run(*argv):
    return command_line.run(lambda: main([str(word) for word in argv]))


@pytest.mark.parametrize(
    "layer",
    [
        "pooled",
        "aux_logits",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("Mixed_7a", "logits")),
    ],
)
def test_features_are_the_predictors_for_what_can_be_read(folder, layer, tmp_path, capsys):
    output = tmp_path / "features.npz"
    images, flags = folder / "images", [f"--layer={layer}", "--output", output]
    assert _run(folder / "weights", images, *flags, "--batch_size=2") == 0
    assert "2.png" in capsys.readouterr().err
    good = [str(images / f"{number}.png") for number in (0, 1, 3, 4)]
    predict = Predictor(MODEL, make_variables(MODEL), WHOLE, endpoints=[layer])
    ((_, outputs),) = predict.stream(good)
    with np.load(output) as file:
        assert file["paths"].tolist() == good
        assert file["features"].dtype == np.float32
        scale = np.abs(outputs[layer]).max()
        np.testing.assert_allclose(file["features"], outputs[layer], atol=1e-5 * scale)
    assert list(tmp_path.iterdir()) == [output]


def test_nothing_is_overwritten_or_left_half_written(folder, tmp_path, capsys):
    output = tmp_path / "features.npz"
    command = [folder / "weights", folder / "images" / "2.png", f"--output={output}"]
    assert _run(*command) == 1
    assert "none of 1 files" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    output.write_text("mine")
    assert _run(*command) == 1
    assert "features.npz exists" in capsys.readouterr().err
    assert output.read_text() == "mine"


def test_an_unknown_layer_is_answered_with_those_there(folder, tmp_path, capsys):
    flags = ["--layer=Mixed_9z", f"--output={tmp_path / 'x.npz'}"]
    assert _run(folder / "weights", folder / "images", *flags) == 1
    error = capsys.readouterr().err
    assert all(name in error for name in ("Mixed_9z", "'Mixed_5b'", "'pooled'"))


class _Fake:
    """In place of a Predictor: a megabyte of features per image."""

    def stream(self, images, max_pixels, on_error):
        for index in range(len(images)):
            row = np.full((1, 2**18), index, np.float32)
            yield np.array([index]), {"pooled": row}


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    output, names = tmp_path / "features.npz", [f"{number}.png" for number in range(120)]
    tracemalloc.start()
    shape = features.write_features(_Fake(), "pooled", names, output)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shape == (120, 2**18)
    assert peak < 40 * 2**20  # numpy.savez copies 16 MiB at a time
    with np.load(output) as file:
        assert file["features"].shape == shape
        np.testing.assert_array_equal(file["features"][:, 7], np.arange(120))


def test_a_crash_leaves_nothing(tmp_path):
    class Crash(_Fake):
        def stream(self, images, max_pixels, on_error):
            yield from super().stream(images[:1], max_pixels, on_error)
            raise UserError("stop")

    with pytest.raises(UserError, match="stop"):
        features.write_features(Crash(), "pooled", ["0.png", "1.png"], tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []
