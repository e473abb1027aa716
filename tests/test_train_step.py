"""The training step: accumulation, precision, mixup, and steps that are left out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception import sharding
from inception.state import build
from inception.train_step import Step, blocks

pytestmark = pytest.mark.rounding


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
    return Step(training, mesh)(training.create_state(mesh), _batch(16))


@pytest.mark.slow
def test_accumulation_is_the_same_step(tiny):
    """Whole groups are split off, so statistics, loss and gradient agree (without dropout)."""
    overrides = ["model.batch_norm_group=4", "model.dropout_rate=0.0", "optimizer=momentum"]
    once, once_metrics = _step(tiny(*overrides))
    split, split_metrics = _step(tiny(*overrides, "accumulation_steps=2"))
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(once.params)))
    np.testing.assert_allclose(once_metrics["weight_norm"], norm, rtol=1e-5)
    # A fresh network turns other rounding into per cents of its gradient (docs/decisions.md).
    for name, rtol in {"loss": 1e-4, "aux_loss": 1e-4, "top1": 1e-4, "grad_norm": 1e-2}.items():
        np.testing.assert_allclose(split_metrics[name], once_metrics[name], rtol=rtol)
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


@pytest.mark.slow
def test_mixup_trains(tiny):
    _, metrics = _step(tiny("mixup_alpha=0.2"))
    assert np.isfinite(metrics["loss"])


@pytest.fixture(scope="module")
def program(tiny):
    """The first state of a run, and its step."""
    training, mesh = build(tiny(), num_classes=10, steps_per_epoch=2.5), sharding.make_mesh()
    return training, training.create_state(mesh), Step(training, mesh)


def _poisoned(state, block: str, value: float):
    """A copy of the state in which all weights of a stage or head are `value`."""
    weights = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), state.params[block])
    return dataclasses.replace(
        jax.tree.map(jnp.copy, state),
        params={**jax.tree.map(jnp.copy, state.params), block: weights},
    )


# NaN in the loss; weights so large that a variance is infinite, though normalized values are not.
@pytest.mark.parametrize(
    ("block", "value"),
    [pytest.param("Logits", np.nan, marks=pytest.mark.slow), ("Mixed_5b", 1e30)],
)
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(program, block, value):
    training, state, step = program
    before = _poisoned(state, block, value)
    after, metrics = step(jax.tree.map(jnp.copy, before), _batch(16))
    assert not metrics["finite"]
    assert after.step == before.step + 1
    changed = set()
    leaves = jax.tree_util.tree_leaves_with_path(before)
    for (path, old), new in zip(leaves, jax.tree.leaves(after), strict=True):
        if np.asarray(old).tobytes() != np.asarray(new).tobytes():
            changed.add(jax.tree_util.keystr(path))
            assert new == old + 1
    assert {name.rsplit(".")[-1] for name in changed} == {"step", "count"}
    np.testing.assert_allclose(metrics["learning_rate"], training.schedule(0))


def test_the_gradient_s_norm_is_known_block_by_block(program):
    _, state, step = program
    _, metrics = step(jax.tree.map(jnp.copy, state), _batch(16))
    names, norms = blocks(state.params), metrics["block_grad_norms"]
    assert metrics["finite"]
    assert {"Conv2d_1a_3x3", "Mixed_5b", "Logits", "AuxLogits"} <= set(names)
    assert norms.shape == (len(names),)
    np.testing.assert_allclose(np.sqrt(np.square(norms).sum()), metrics["grad_norm"], rtol=1e-5)


def test_a_gpu_does_not_wait_for_the_host_to_see_whether_a_step_is_finite(program):
    _, state, step = program
    programs = {
        platform: step.jitted.trace(state, _batch(16))
        .lower(lowering_platforms=(platform,))
        .as_text()
        for platform in ("cpu", "cuda")
    }
    assert "stablehlo.case" in programs["cpu"]
    assert not {"stablehlo.case", "stablehlo.if"} & set(programs["cuda"].split())
