"""The state as vectors: nothing is lost, and a step computes the same."""

import jax
import numpy as np
import optax
import pytest

from inception.distributed import sharding
from inception.training import packing
from inception.training.state import build
from tests.training.test_step import step_in_float64

pytestmark = pytest.mark.rounding


@pytest.fixture(scope="module")
def recipe(tiny):
    return build(tiny("body_learning_rate_factor=0.5"), num_classes=10, steps_per_epoch=2.5)


@pytest.fixture(scope="module")
def state(recipe):
    return recipe.create_state(sharding.make_mesh())


def test_unpacking_gives_what_was_packed(state):
    packed = jax.jit(packing.pack_state)(state)
    assert all(leaf.ndim < 2 for leaf in jax.tree.leaves(packed))
    assert set(packed.params["Mixed_5b"]) == {"kernel", "rest"}
    assert set(packed.batch_stats["Mixed_5b"]) == {"rest"}
    unpacked = packing.unpack_state(packed, state)
    assert jax.tree.structure(unpacked) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, unpacked, state)


@pytest.mark.slow
def test_a_packed_update_is_the_update_leaf_by_leaf(recipe, state):
    """Also with clipping, decay of kernels alone, and another learning rate for the heads."""
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    grads = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), state.params)
    decay, frozen = recipe.config.ema_decay, ("Mixed_5b",)
    update = lambda state, grads: state.apply_gradients(  # noqa: E731
        grads, state.batch_stats, recipe.optimizer, decay, frozen
    )
    expected = jax.jit(update)(state, grads)
    actual = jax.jit(update)(packing.pack_state(state), packing.pack(grads))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7),
        packing.unpack_state(actual, state),
        expected,
    )
    assert optax.tree.norm(optax.tree.sub(expected.params, state.params)) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_step_with_a_packed_state_is_the_same(tiny):
    rng = np.random.default_rng(0)
    numbers = np.arange(16, dtype=np.int32)
    batch = {
        "image": rng.integers(0, 256, (16, 75, 75, 3), np.uint8),
        "label": numbers % 10,
        "epoch": numbers * 0,
        "example": numbers,
    }
    results = [step_in_float64(tiny(), batch, packed) for packed in (False, True)]
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8), *results
    )
