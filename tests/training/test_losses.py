"""The loss against Keras's label smoothing and against the formula of section 7."""

import jax
import numpy as np
import pytest

from inception.training import losses

pytestmark = pytest.mark.rounding


def _logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (6, 10)).astype(np.float32)


LABELS = np.array([0, 3, 9, 3, 5, 1], np.int32)


def test_targets_are_the_papers_mixture_with_the_uniform_distribution():
    targets = np.asarray(losses.smooth_targets(LABELS, 10, 0.1))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[0], [0.9 + 0.01] + [0.01] * 9, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_kerass(smoothing):
    keras = pytest.importorskip("keras", reason="Keras is the oracle")
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = float(theirs(np.eye(10, dtype=np.float32)[LABELS], _logits()))
    targets = losses.smooth_targets(LABELS, 10, smoothing)
    loss, parts = losses.heads_loss(_logits(), {}, targets, aux_weight=0.4)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert set(parts) == {"main_loss"}


def test_the_auxiliary_head_adds_its_weighted_loss():
    targets = losses.smooth_targets(LABELS, 10, 0.1)
    main, _ = losses.heads_loss(_logits(0), {}, targets, 0.4)
    side, _ = losses.heads_loss(_logits(1), {}, targets, 0.4)
    loss, parts = losses.heads_loss(_logits(0), {"aux_logits": _logits(1)}, targets, 0.4)
    np.testing.assert_allclose(loss, main + 0.4 * side, rtol=1e-6)
    np.testing.assert_allclose([parts["main_loss"], parts["aux_loss"]], [main, side], rtol=1e-6)


def test_gradient_of_the_smoothed_loss_is_p_minus_q():
    targets = losses.smooth_targets(LABELS, 10, 0.1)
    grad = jax.grad(lambda logits: losses.heads_loss(logits, {}, targets, 0.4)[0])(_logits())
    expected = (jax.nn.softmax(_logits()) - targets) / len(LABELS)
    np.testing.assert_allclose(grad, expected, atol=1e-7)
