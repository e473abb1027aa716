"""readers: pixels that never change, and images without labels."""

import cv2
import numpy as np
import pytest
import simplejpeg
from sklearn.datasets import load_sample_images

from inception.data.crops import eval_crops
from inception.data.decode import BadImage, decode
from inception.data.preprocessing import Preprocessing
from inception.data.sources import ArraySource
from inception.data.stream import eval_stream, predict_stream, train_stream

N = 29  # a prime: it fits no batch


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Parts of a photograph, of different shapes, as JPEG."""
    image = load_sample_images().images[0]
    parts = [
        np.ascontiguousarray(image[7 * i : 120 + 9 * i, 5 * i : 100 + 7 * i]) for i in range(N)
    ]
    return [simplejpeg.encode_jpeg(part, quality=90) for part in parts]


# Batches are the same for ever: these pixels are from before the streams took plain arguments.


@pytest.fixture(scope="module")
def mosaics() -> ArraySource:
    """23 images of 4 x 4 blocks, each of one color."""
    rng = np.random.default_rng(5)
    images = [
        rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(height, 0).repeat(width, 1)
        for height, width in rng.integers(5, 22, (23, 2))
    ]
    return ArraySource(images, np.arange(23) % 7)


def assert_pixels(images: np.ndarray, expected: str) -> None:
    """But for rounding, in which processors differ."""
    pixels = np.frombuffer(bytes.fromhex(expected), np.uint8).reshape(images.shape)
    np.testing.assert_allclose(images.astype(int), pixels, atol=2)


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        (
            "inception",
            "c1109ab7568fc1109ab7568fee5d4df5882fee5d4df5882f7d5cd7db9d69186cb60b71f156ee5dc3"
            "d62331c0746ae26a8da3522c2e4251885875a66b",
        ),
        (
            "inception_fast",
            "bc1296b8548dbc1296b8548dee5d4df5882fee5d4df5882f7d5cd7db9d69186cb60b71f12af979ca"
            "e92222d47898e548cee95b0103511e826483f047",
        ),
        (
            "resnet",
            "812d6bbb4b7979525aae3989bc8f31ea955e9d8656d3956e70768d8e80553147853b82c85cdf54b7"
            "b5253bc87073e26491a555322f44518b5b73a46c",
        ),
        (
            "flip",
            "744480b296706b86449b2a9ba67a7d8aa15c78837cb99b8a6c7e57625f663754a2a69f7d76b57998"
            "ab813fc8736f83698aab5655406169af6b749f6b",
        ),
        (
            "none",
            "744480b296706b86449b2a9ba67a7d8aa15c78837cb99b8a6c7e57625f663754a2a69f7d76b57998"
            "ab813fc8736f83698aab5655406169af6b749f6b",
        ),
    ],
)
def test_training_batches_never_change(mosaics, augmentation, expected):
    how = {"seed": 3, "image_size": 2, "batch_size": 5, "augmentation": augmentation}
    stream = train_stream(mosaics, start_step=4, **how)
    batch = next(stream)
    stream.close()
    assert batch["epoch"].tolist() == [0, 0, 0, 1, 1]
    assert batch["example"].tolist() == [19, 21, 16, 17, 2]
    assert_pixels(batch["image"], expected)


@pytest.mark.parametrize(
    ("method", "crops", "expected"),
    [
        (
            "inception",
            1,
            "ad24924b1fbe57ff8b313a85b5cdc25ec55909fa75dc800fcee95b3927061e82642726b03c08d248"
            "0f382595e7c4cc0d030b815550f3dfd5adf81583",
        ),
        (
            "resize_crop",
            1,
            "60859a4b66878e6c753f74aa72a29d85868c4fc4b273c08b739b5e5e5f656f9c6969905d67767284"
            "9e9e777b87666c613f5aa08086daa2676bb382b4",
        ),
        (
            "inception",
            12,
            "60859a4b66878e6c753f74aa4b668760859a3f74aa8e6c7560859a4b66878e6c753f74aa4b668760"
            "859a3f74aa8e6c7560859a4b66878e6c753f74aa4b668760859a3f74aa8e6c7560859a4b66878e6c"
            "753f74aa4b668760859a3f74aa8e6c7560859a4b66878e6c753f74aa4b668760859a3f74aa8e6c75"
            "60859a4b66878e6c753f74aa4b668760859a3f74aa8e6c75",
        ),
    ],
)
def test_evaluation_batches_never_change(mosaics, method, crops, expected):
    stream = eval_stream(mosaics, Preprocessing(2, method), batch_size=5, crops=crops)
    assert_pixels(next(stream)["image"], expected)


# Prediction: no labels.


def predict(images, **changes):
    return predict_stream(images, Preprocessing(32), **{"batch_size": 24, "threads": 2, **changes})


@pytest.mark.parametrize("crops", [1, 12])
@pytest.mark.parametrize("kind", ["files", "paths", "pixels"])
def test_prediction_sees_what_evaluation_sees(files, tmp_path, kind, crops):
    images = files if kind == "files" else [decode(file) for file in files]
    if kind == "paths":
        images = [tmp_path / f"{i}.jpg" for i in range(N)]
        for path, file in zip(images, files, strict=True):
            path.write_bytes(file)
    predicted = list(predict(images, crops=crops))
    assert {name: (a.dtype.name, a.shape) for name, a in predicted[0].items()} == {
        "image": ("uint8", (24 // crops, crops, 32, 32, 3)),
        "index": ("int32", (24 // crops,)),
    }
    source = ArraySource(files, np.zeros(N, int))
    expected = list(eval_stream(source, Preprocessing(32), batch_size=24, crops=crops))
    for batch, other in zip(predicted, expected, strict=True):
        np.testing.assert_array_equal(batch["image"], other["image"])
        np.testing.assert_array_equal(batch["index"], other["example"])


def test_preprocessing_reaches_the_crops(files):
    preprocessing = Preprocessing(40, "resize_crop", 0.8, "bicubic")
    (batch,) = predict_stream(files[:1], preprocessing, batch_size=1)
    np.testing.assert_array_equal(batch["image"][0], eval_crops(decode(files[0]), preprocessing))


def test_bad_images_are_reported_and_left_black(files):
    images = [files[0], b"no image", "nowhere/a.jpg", files[1], np.zeros((3, 3, 2), np.uint8)]
    errors = {}
    (batch,) = predict(images, on_error=errors.__setitem__)
    assert batch["index"].tolist() == [0, -1, -1, 3, *[-1] * 20]
    assert batch["image"].any((1, 2, 3, 4)).tolist() == (batch["index"] >= 0).tolist()
    assert sorted(errors) == [1, 2, 4]
    assert all(type(error) is BadImage for error in errors.values())
    assert str(errors[1]).startswith("image 1: ")
    assert str(errors[2]).startswith("nowhere/a.jpg: ")


def test_a_bad_image_is_an_error_where_nobody_is_told(files):
    with pytest.raises(BadImage, match=r"nowhere/a\.jpg: "):
        list(predict([*files, "nowhere/a.jpg"]))


def test_any_error_of_one_image_is_reported(files, monkeypatch):
    """Of whatever kind, from decoding or from resizing; the others go on."""
    strip = np.zeros((1, 60_000, 3), np.uint8)
    kinds = MemoryError, cv2.error, ZeroDivisionError, BadImage
    raised = {place: kind("reason") for place, kind in enumerate(kinds)}
    calls = iter(range(9))

    def eval_crops_or_error(*arguments):
        if error := raised.get(next(calls)):
            raise error
        return eval_crops(*arguments)

    monkeypatch.setattr("inception.data.stream.eval_crops", eval_crops_or_error)
    errors = {}
    images = [*files[:4], strip, files[4]]
    batches = [*predict(images, threads=1, on_error=errors.__setitem__)]
    assert batches[0]["index"].tolist()[:6] == [-1, -1, -1, -1, 4, 5]
    assert sorted(errors) == [0, 1, 2, 3]
    assert all(type(error) is BadImage for error in errors.values())
    assert all(str(error).startswith(f"image {i}: ") for i, error in errors.items())
    assert "too little memory" in str(errors[0])


def test_memory_that_runs_out_names_the_image(files, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("inception.data.readers.decode", fail)
    source = ArraySource(files, np.zeros(N, int))
    for stream in (
        predict(files),
        eval_stream(source, Preprocessing(32), batch_size=4, threads=1),
        train_stream(source, seed=0, image_size=32, batch_size=4, on_bad_record="skip", threads=1),
    ):
        with pytest.raises(MemoryError, match=r"image \d+: too little memory"):
            list(stream)


def test_images_above_the_limit_of_pixels_are_bad(files):
    source, errors = ArraySource(files, np.zeros(N, int)), {}
    sizes = [np.prod(decode(file).shape[:2]) for file in files]
    limit = int(np.median(sizes))
    list(predict(files, max_pixels=limit, on_error=errors.__setitem__))
    assert sorted(errors) == [i for i, size in enumerate(sizes) if size > limit]
    with pytest.raises(BadImage, match="max_pixels="):
        list(eval_stream(source, Preprocessing(32), batch_size=4, max_pixels=limit))
    how = {"seed": 0, "image_size": 32, "batch_size": N, "max_pixels": limit}
    with pytest.raises(BadImage, match="max_pixels="):
        next(train_stream(source, **how))
    batch = next(train_stream(source, on_bad_record="skip", **how))
    assert max(sizes[i] for i in batch["example"]) <= limit


def test_no_images_are_no_batches():
    assert list(predict([])) == []
