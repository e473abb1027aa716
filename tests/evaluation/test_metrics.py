"""Counts against scikit-learn, and sums that do not depend on how the data is cut into batches."""

import jax
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from inception.evaluation import metrics

CLASSES = 12


def _data(n: int = 103):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (n, CLASSES)).astype(np.float32)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_p, rng.integers(0, CLASSES, n).astype(np.int32)


def _count(log_p, labels) -> dict:
    """Counts one batch without padding."""
    numbers = np.arange(len(labels), dtype=np.int32)
    return metrics.count(log_p, labels, np.ones(len(labels), bool), numbers)


def _total(log_p, labels, batch: int) -> dict:
    """Counts in batches, the last one padded and masked."""
    total: dict = {}
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        missing = batch - len(labels[part])
        mask, examples = np.arange(batch) < batch - missing, start + np.arange(batch)
        padded = [np.concatenate([a[part], a[:missing]]) for a in (log_p, labels)]
        total = metrics.add(total, metrics.count(*padded, mask, examples))
    return total


@pytest.mark.rounding
def test_accuracies_loss_and_confusion_are_scikit_learns():
    log_p, labels = _data()
    result = metrics.summarize(_total(log_p, labels, batch=20))
    predicted, p = log_p.argmax(axis=1), np.exp(log_p)
    everything = np.arange(CLASSES)
    np.testing.assert_allclose(result["top1"], sklearn_metrics.accuracy_score(labels, predicted))
    np.testing.assert_allclose(
        result["top5"],
        sklearn_metrics.top_k_accuracy_score(labels, p, k=5, labels=everything),
    )
    np.testing.assert_allclose(
        result["loss"], sklearn_metrics.log_loss(labels, p, labels=everything), rtol=1e-5
    )
    assert result["wrong"] == np.flatnonzero(predicted != labels).tolist()
    confusion = sklearn_metrics.confusion_matrix(labels, predicted, labels=everything)
    np.testing.assert_array_equal(result["confusion"], confusion)
    np.testing.assert_allclose(result["per_class"], np.diag(confusion) / confusion.sum(axis=1))


@pytest.mark.rounding
@pytest.mark.parametrize("batch", [1, 7, 64, 200])
def test_batches_do_not_matter(batch):
    data = _data()
    whole, cut = _total(*data, 103), _total(*data, batch)
    assert cut["examples"] == 103
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-5, err_msg=name)


@pytest.mark.rounding
def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.7, 0.3]], np.float32)
    labels = np.array([0, 1, 0, 0], np.int32)
    result = metrics.summarize(metrics.add({}, _count(np.log(p), labels)))
    np.testing.assert_allclose(result["ece"], (0.4 + 0.3) / 2, rtol=1e-6)
    np.testing.assert_allclose(result["confidence"], 0.8, rtol=1e-6)


@pytest.mark.rounding
def test_several_right_answers_and_none():
    p = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.6, 0.3, 0.1]], np.float32)
    labels = np.array([[0, 2], [1, -1], [-1, -1]], np.int32)
    sums = _count(np.log(p), labels)
    assert (sums["examples"], sums["top1"], sums["top5"]) == (2, 1, 2)
    expected = -(np.log(0.6) + np.log(0.1)) / 2 - np.log(0.3)
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-6)


def test_a_class_without_images_has_no_accuracy_and_many_classes_no_confusion():
    log_p = np.full((2, 60), -np.log(60), np.float32)
    result = metrics.summarize(metrics.add({}, _count(log_p, np.array([0, 1], np.int32))))
    assert "confusion" not in result
    assert result["per_class"][:3] == [1.0, 0.0, None]


def test_no_type_or_rank_is_promoted():
    """Whoever turns on JAX's checks of them can evaluate."""
    labels, examples = np.zeros((4, 2), np.int32), np.arange(4, dtype=np.int32)
    arguments = np.zeros((4, 10), np.float32), labels, np.ones(4, bool), examples
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        sums = jax.eval_shape(metrics.count, *arguments)
    assert {value.dtype.name for value in sums.values()} == {"float32", "int32"}
    with jax.enable_x64(True):
        wide = jax.eval_shape(metrics.count, *arguments)
    assert {value.dtype.name for value in wide.values()} == {"float32", "int32", "int64"}


@pytest.mark.rounding
def test_what_is_not_finite_is_no_hit_and_is_counted():
    """Rows of NaN, with one NaN, of -inf, with +inf, masked; then two that are right."""
    log_p = np.full((7, 10), np.log(0.1), np.float32)
    log_p[[0, 4]], log_p[1, 9], log_p[2], log_p[3, 9] = np.nan, np.nan, -np.inf, np.inf
    log_p[5, 0] = log_p[6, 0] = np.log(0.2)
    log_p[6, 9] = -np.inf  # a class that cannot be the answer
    labels, mask = np.zeros(7, np.int32), np.arange(7) != 4
    sums = metrics.count(log_p, labels, mask, np.arange(7))
    assert (sums["examples"], sums["top1"], sums["top5"], sums["not_finite"]) == (6, 2, 2, 4)
    assert (sums["class_correct"][0], sums["confusion"].sum(), sums["bin_correct"].sum()) == (
        2,
    ) * 3
    result = metrics.summarize(metrics.add({}, sums))
    np.testing.assert_allclose(
        [result["top1"], result["not_finite"], result["confidence"]], [2 / 6, 4, 0.4 / 6], rtol=1e-6
    )
    assert not np.isfinite(result["loss"])
    assert result["wrong"] == [0, 1, 2, 3]
