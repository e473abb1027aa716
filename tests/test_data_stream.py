"""stream: batches bit for bit whatever reads them, each example once, and what goes wrong said."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from sklearn.datasets import load_sample_images

from inception.data import DataError
from inception.data.crops import eval_crops
from inception.data.decode import BadImage, decode
from inception.data.sources import ArraySource
from inception.data.stream import eval_stream, predict_stream, train_stream
from inception.preprocessing import Preprocessing

N = 53  # a prime: it fits no batch


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Parts of a photograph, of different shapes, as JPEG."""
    image = load_sample_images().images[0]
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(N):
        y, x = rng.integers(0, 300, 2)
        height, width = rng.integers(40, 120, 2)
        parts.append(np.ascontiguousarray(image[y : y + height, x : x + width]))
    return [simplejpeg.encode_jpeg(part, quality=90) for part in parts]


@pytest.fixture
def source(files) -> ArraySource:
    return ArraySource(files, np.arange(N) % 7)


def train(source, **changes):
    arguments = {"seed": 0, "image_size": 32, "batch_size": 24, "threads": 2, **changes}
    return train_stream(source, **arguments)


def evaluate(source, **changes):
    return eval_stream(source, Preprocessing(32), **{"batch_size": 60, "threads": 2, **changes})


def take(stream, count: int) -> list[dict[str, np.ndarray]]:
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def assert_equal(actual, expected) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype, name
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_shapes_and_types(source):
    (batch,) = take(train(source), 1)
    assert {name: (a.dtype.name, a.shape) for name, a in batch.items()} == {
        "image": ("uint8", (24, 32, 32, 3)),
        "label": ("int32", (24,)),
        "epoch": ("int32", (24,)),
        "example": ("int32", (24,)),
    }
    np.testing.assert_array_equal(batch["label"], batch["example"] % 7)


@pytest.mark.parametrize("batch_size", [24, N, 3 * N + 1])
def test_every_example_comes_once_an_epoch(source, batch_size):
    epochs = 5
    batches = take(train(source, batch_size=batch_size), -(-epochs * N // batch_size))
    everything = join(batches)
    orders = []
    for epoch in range(epochs):
        order = everything["example"][everything["epoch"] == epoch]
        assert sorted(order) == list(range(N))
        orders.append(order.tolist())
    assert (np.diff(everything["epoch"]) >= 0).all()
    assert len({tuple(order) for order in orders}) == epochs


def test_a_seed_decides_order_and_crops(source):
    first, again, other = (take(train(source, seed=seed), 2) for seed in (3, 3, 4))
    assert_equal(first, again)
    assert not np.array_equal(first[0]["example"], other[0]["example"])
    places = [
        int(np.flatnonzero(join(batches)["example"] == 5)[0])
        for batches in (take(train(source, seed=seed), 3) for seed in (3, 4))
    ]
    assert len(set(places)) == 2


def test_crops_differ_between_epochs(source):
    everything = join(take(train(source, batch_size=N), 2))
    first, second = (everything["image"][everything["epoch"] == epoch] for epoch in (0, 1))
    order = [np.argsort(everything["example"][everything["epoch"] == epoch]) for epoch in (0, 1)]
    same = (first[order[0]] == second[order[1]]).all((1, 2, 3))
    assert same.mean() < 0.2


@pytest.mark.parametrize("start", [1, 2, 5, 11])
def test_resuming_at_any_step_continues_bit_for_bit(source, start):
    assert_equal(take(train(source, start_step=start), 3), take(train(source), start + 3)[start:])


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_processes_share_the_same_batches(source, count, threads):
    whole = take(train(source, start_step=1), 4)
    parts = [
        take(train(source, threads=threads, start_step=1, process_index=i, process_count=count), 4)
        for i in range(count)
    ]
    assert_equal([join(list(step)) for step in zip(*parts, strict=True)], whole)


@pytest.mark.parametrize("threads", [1, 3, 7])
def test_threads_change_nothing(source, threads):
    size = 40  # more than a thread takes at a time, and no multiple of it
    expected = take(train(source, batch_size=size), 4)
    assert_equal(take(train(source, batch_size=size, threads=threads), 4), expected)


def test_batches_are_not_written_to_after_they_are_handed_out(source):
    stream = train(source)
    first = next(stream)
    kept = {name: array.copy() for name, array in first.items()}
    for _ in range(10):
        next(stream)
    stream.close()
    assert_equal([first], [kept])


@pytest.mark.parametrize("crops", [1, 12])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_evaluation_counts_every_example_once(source, files, crops, count):
    parts = [
        list(evaluate(source, crops=crops, process_index=i, process_count=count))
        for i in range(count)
    ]
    assert len({len(part) for part in parts}) == 1
    share = -(-(60 // crops) // count)
    assert {batch["image"].shape for part in parts for batch in part} == {(share, crops, 32, 32, 3)}
    everything = join([join(list(step)) for step in zip(*parts, strict=True)])
    mask = everything["mask"]
    np.testing.assert_array_equal(everything["example"][mask], np.arange(N))
    np.testing.assert_array_equal(everything["label"][mask], np.arange(N) % 7)
    assert (everything["example"][~mask] == -1).all()
    assert not everything["image"][~mask].any()
    assert everything["image"][mask].any((1, 2, 3, 4)).all()


def test_more_crops_than_a_batch_leave_one_image(source):
    batch = next(evaluate(source, crops=144))
    assert batch["image"].shape == (1, 144, 32, 32, 3)


def test_multi_label_evaluation(files):
    labels = np.array([[1, 2, -1], [-1, -1, -1], [0, -1, -1]])
    source = ArraySource(files[:3], labels)
    (batch,) = evaluate(source, batch_size=4)
    np.testing.assert_array_equal(batch["label"], [*labels, [-1, -1, -1]])
    assert batch["mask"].tolist() == [True, True, True, False]
    with pytest.raises(DataError, match="multi-label"):
        train(source)


def spoil(files: list[bytes], *examples: int) -> ArraySource:
    spoilt = [f[: len(f) // 2] if i in examples else f for i, f in enumerate(files)]
    return ArraySource(spoilt, np.arange(N) % 7)


def test_a_bad_record_fails_and_is_named(files):
    with pytest.raises(BadImage, match=r"image 17 of the arrays: JPEG of .* end"):
        take(train(spoil(files, 17), batch_size=N), 1)


def test_bad_records_are_skipped_for_the_next_of_the_permutation(files, source):
    how = {"on_bad_record": "skip", "batch_size": N}
    whole = take(train(source, **how), 2)
    skipped = take(train(spoil(files, 17, 30), **how), 2)
    for before, after in zip(whole, skipped, strict=True):
        order = before["example"].tolist()
        expected = [
            next(e for e in order[place:] + order[:place] if e not in (17, 30))
            for place in range(N)
        ]
        assert after["example"].tolist() == expected
        np.testing.assert_array_equal(after["label"], np.array(expected) % 7)
    assert_equal(take(train(spoil(files, 17, 30), **how), 2), skipped)


def test_skipped_records_are_counted_in_the_log(files, caplog):
    with caplog.at_level("WARNING"):
        take(train(spoil(files, 17, 30), on_bad_record="skip", batch_size=N, threads=1), 1)
    text = caplog.text
    assert "1 since this start" in text
    assert "2 since this start" in text
    assert "image 30" in text


def test_nothing_but_bad_records_is_an_error(files):
    with pytest.raises(BadImage, match=f"{N} records"):
        take(train(spoil(files, *range(N)), on_bad_record="skip"), 1)


def test_evaluation_never_skips(files):
    with pytest.raises(BadImage, match="image 17"):
        list(evaluate(spoil(files, 17)))


class Lying(ArraySource):
    """Says that it holds more, or other labels, than it does."""

    def __init__(self, files, label=0, extra=0):
        super().__init__(files, np.zeros(len(files), int), num_classes=7)
        self.label, self.extra = label, extra

    def __len__(self):
        return super().__len__() + self.extra

    def __getitem__(self, index):
        return super().__getitem__(index)[0], self.label


@pytest.mark.parametrize("stream", [train, evaluate])
@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_outside_the_classes_is_an_error(files, stream, label):
    with pytest.raises(DataError, match=rf"image \d+ of the arrays: label {label} .* 7 classes"):
        next(stream(Lying(files, label=label)))


@pytest.mark.parametrize("stream", [train, evaluate])
def test_an_epoch_that_is_too_short_is_an_error(files, stream):
    with pytest.raises(DataError, match=f"{N + 1} examples"):
        list(itertools.islice(stream(Lying(files, extra=1), batch_size=N + 1), 3))


class Vanished(ArraySource):
    def __getitem__(self, index):
        raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize("stream", [train, evaluate])
def test_a_file_that_is_gone_is_never_skipped(files, stream):
    how = {"on_bad_record": "skip"} if stream is train else {}
    with pytest.raises(DataError, match=r"image \d+ of the arrays: .*No such file"):
        next(stream(Vanished(files, np.zeros(N, int)), **how))


def test_a_batch_that_processes_cannot_share_is_an_error_at_once(source):
    with pytest.raises(DataError, match=r"batch_size=24 .* 7 "):
        train(source, process_count=7)


def test_closing_and_abandoning_end_the_threads(source):
    before = threading.active_count()
    for _ in range(3):
        stream = train(source)
        next(stream)
        stream.close()
        abandoned = train(source)
        next(abandoned)
        del abandoned
    for thread in threading.enumerate():
        if thread.name.startswith("grain"):
            thread.join(5)
    assert threading.active_count() <= before


LEFT_OPEN = """
import numpy as np
from inception.data.sources import ArraySource
from inception.data.stream import train_stream

source = ArraySource(np.zeros((9, 40, 40, 3), np.uint8), np.zeros(9, int))
next(train_stream(source, seed=0, image_size=32, batch_size=64, threads=2))
print("done", flush=True)
"""


def test_a_program_can_end_with_a_stream_open():
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(root))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_over_an_epoch(files):
    """5,000 examples of 600 kB decoded: an epoch held in memory would be 3 GB."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    image = np.ascontiguousarray(load_sample_images().images[0][:400, :500])
    file = simplejpeg.encode_jpeg(image, quality=50)
    source = ArraySource([file] * 5000, np.zeros(5000, int))
    stream = train(source, image_size=128, batch_size=50)
    sizes = []
    for _ in range(100):
        next(stream)
        sizes.append(resident())
    stream.close()
    assert max(sizes[50:]) - max(sizes[20:50]) < 20e6


# Prediction: no labels.


def predict(images, **changes):
    return predict_stream(images, Preprocessing(32), **{"batch_size": 24, "threads": 2, **changes})


@pytest.mark.parametrize("crops", [1, 12])
@pytest.mark.parametrize("kind", ["files", "paths", "pixels"])
def test_prediction_sees_what_evaluation_sees(source, files, tmp_path, kind, crops):
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
    expected = list(evaluate(source, batch_size=24, crops=crops))
    assert_equal(
        [{"image": batch["image"], "index": batch["example"]} for batch in expected], predicted
    )


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


def test_no_images_are_no_batches():
    assert list(predict([])) == []


# Batches are the same for ever: these pixels are from before the streams took plain arguments.


@pytest.fixture(scope="module")
def mosaics() -> ArraySource:
    """23 images of 4 x 4 blocks, each of one colour."""
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
    (batch,) = take(train(mosaics, start_step=4, **how), 1)
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
