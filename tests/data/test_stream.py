"""stream: batches bit for bit whatever reads them, each example once, and what goes wrong said."""

import itertools

import numpy as np
import pytest
import simplejpeg
from sklearn.datasets import load_sample_images

from inception.data import DataError
from inception.data.decode import BadImage
from inception.data.preprocessing import Preprocessing
from inception.data.sources import ArraySource
from inception.data.stream import eval_stream, train_stream

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
    everything = join(take(train(source, batch_size=batch_size), -(-epochs * N // batch_size)))
    orders = everything["example"][: epochs * N].reshape(epochs, N)
    np.testing.assert_array_equal(np.sort(orders), [range(N)] * epochs)
    np.testing.assert_array_equal(everything["epoch"], np.arange(len(everything["epoch"])) // N)
    assert len(np.unique(orders, axis=0)) == epochs


def test_a_seed_decides_order_and_crops(source):
    first, again, other = (take(train(source, seed=seed), 2) for seed in (3, 3, 4))
    assert_equal(first, again)
    assert not np.array_equal(first[0]["example"], other[0]["example"])


def test_crops_differ_between_epochs(source):
    epochs = take(train(source, batch_size=N), 2)
    first, second = (batch["image"][np.argsort(batch["example"])] for batch in epochs)
    same = (first == second).all((1, 2, 3))
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
    with pytest.raises(DataError, match="labels each"):
        train(source)


def test_no_images_at_all():
    empty = ArraySource([], np.zeros(0, int))
    assert list(evaluate(empty)) == []
    with pytest.raises(DataError, match=r"\b0 images"):
        train(empty)


def spoil(files: list[bytes], *examples: int) -> ArraySource:
    spoilt = [f[: len(f) // 2] if i in examples else f for i, f in enumerate(files)]
    return ArraySource(spoilt, np.arange(N) % 7)


def test_a_bad_record_fails_and_is_named(files):
    with pytest.raises(BadImage, match="image 17: "):
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
    assert all(part in caplog.text for part in ("(1 since", "(2 since", "image 17: ", "image 30: "))


def test_nothing_but_bad_records_is_an_error(files):
    with pytest.raises(BadImage, match=f"{N} records"):
        take(train(spoil(files, *range(N)), on_bad_record="skip"), 1)


def test_evaluation_never_skips(files):
    with pytest.raises(BadImage, match="image 17: "):
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
    with pytest.raises(DataError, match=rf"image \d+: label {label} "):
        next(stream(Lying(files, label=label)))


@pytest.mark.parametrize("stream", [train, evaluate])
def test_an_epoch_that_is_too_short_is_an_error(files, stream):
    with pytest.raises(DataError, match=f"{N + 1} examples"):
        list(itertools.islice(stream(Lying(files, extra=1), batch_size=N + 1), 3))


def test_a_batch_that_processes_cannot_share_is_an_error_at_once(source):
    with pytest.raises(DataError, match=r"batch_size=24 .* 7 "):
        train(source, process_count=7)
