"""The training step: accumulation, precision, mixup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception import sharding
from inception.state import build
from inception.train_step import compile_step


def _batch(size: int) -> dict:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, 75, 75, 3), np.uint8),
        "label": rng.integers(0, 10, size).astype(np.int32),
        "epoch": np.zeros(size, np.int32),
        "example": np.arange(size, dtype=np.int32),
    }


def _step(config):
    training, mesh = build(config, num_classes=10, steps_per_epoch=2.5), sharding.make_mesh()
    return compile_step(training, mesh)(training.create_state(mesh), _batch(16))


def test_accumulation_is_the_same_step(tiny):
    """Whole groups are split off, so statistics, loss and gradient agree (without dropout)."""
    overrides = ["model.batch_norm_group=4", "model.dropout_rate=0.0", "optimizer=momentum"]
    once, once_metrics = _step(tiny(*overrides))
    split, split_metrics = _step(tiny(*overrides, "accumulation_steps=2"))
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(once.params)))
    np.testing.assert_allclose(once_metrics["weight_norm"], norm, rtol=1e-5)
    for name in ("loss", "aux_loss", "grad_norm", "top1"):
        np.testing.assert_allclose(split_metrics[name], once_metrics[name], rtol=1e-4)
    for ours, theirs in (
        (split.params, once.params),
        (split.batch_stats, once.batch_stats),
        (split.ema_params, once.ema_params),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), ours, theirs
        )


@pytest.mark.slow
def test_bfloat16_computes_in_it_and_keeps_float32_state(tiny):
    state, metrics = _step(tiny("dtype=bfloat16"))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state)} == {"float32", "int32", "uint32"}
    assert metrics["loss"].dtype == jnp.float32
    _, expected = _step(tiny())
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=0.05)


def test_mixup_trains(tiny):
    _, metrics = _step(tiny("mixup_alpha=0.2"))
    assert np.isfinite(metrics["loss"])
