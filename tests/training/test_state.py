"""The running averages against TensorFlow's, and a first state that depends on the seed alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inception.distributed import sharding
from inception.training import state
from inception.workdir.restore import abstract_weights


def _build(config) -> state.Recipe:
    return state.build(config, num_classes=10, steps_per_epoch=4.0)


def _toy_state(optimizer) -> state.TrainState:
    params, stats = {"w": jnp.ones(3)}, {"mean": jnp.zeros(3)}
    return state.TrainState(
        seed=jnp.uint32(0),
        step=jnp.int32(0),
        params=params,
        batch_stats=stats,
        opt_state=optimizer.init(params),
        ema_params=params,
        ema_batch_stats=stats,
    )


@pytest.mark.rounding
def test_running_averages_are_tensorflows_with_the_ramp():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is the oracle")
    optimizer, ours = optax.sgd(0.1), _toy_state(optax.sgd(0.1))
    weights, stats = tf.Variable(np.ones(3, np.float32)), tf.Variable(np.zeros(3, np.float32))
    step = tf.Variable(0)
    average = tf.train.ExponentialMovingAverage(0.9, num_updates=step)
    average.apply([weights, stats])
    for n in range(120):  # the ramp (1 + n) / (10 + n) reaches 0.9 at n = 80
        gradient = np.float32([np.sin(n), 1, -2])
        ours = ours.apply_gradients(
            {"w": gradient}, {"mean": ours.batch_stats["mean"] + 0.5}, optimizer, decay=0.9
        )
        weights.assign_sub(0.1 * gradient)
        stats.assign_add(np.full(3, 0.5, np.float32))
        average.apply([weights, stats])
        step.assign_add(1)
    np.testing.assert_allclose(ours.params["w"], weights.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.ema_params["w"], average.average(weights), rtol=1e-5)
    np.testing.assert_allclose(ours.ema_batch_stats["mean"], average.average(stats), rtol=1e-5)
    assert ours.step == 120


@pytest.mark.rounding
def test_variables_names_the_raw_and_the_averaged_weights():
    optimizer = optax.sgd(0.1)
    after = _toy_state(optimizer).apply_gradients(
        {"w": jnp.ones(3)}, {"mean": jnp.ones(3)}, optimizer, decay=0.9999
    )
    raw, ema = after.variables("raw"), after.variables("ema")
    np.testing.assert_allclose(raw["params"]["w"], 0.9)
    np.testing.assert_allclose(ema["params"]["w"], 0.1 * 1 + 0.9 * 0.9)  # ramp: 1 / 10 at first
    np.testing.assert_allclose(ema["batch_stats"]["mean"], 0.9)


def test_the_first_state_is_a_function_of_the_seed(tiny):
    first, again, other = (
        _build(tiny(f"seed={seed}")).create_state(sharding.make_mesh()) for seed in (1, 1, 2)
    )
    kernel = lambda s: np.asarray(s.params["Mixed_7c"]["branch1x1"]["conv"]["kernel"])  # noqa: E731
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first, again)))
    assert not np.array_equal(kernel(first), kernel(other))
    assert first.seed == 1


def test_the_abstract_state_describes_the_first_state(tiny):
    recipe, mesh = _build(tiny()), sharding.make_mesh()
    concrete, abstract = recipe.create_state(mesh), recipe.abstract_state(mesh)
    assert jax.tree.structure(concrete) == jax.tree.structure(abstract)
    for real, described in zip(jax.tree.leaves(concrete), jax.tree.leaves(abstract), strict=True):
        assert (real.shape, real.dtype, real.sharding) == (
            described.shape,
            described.dtype,
            described.sharding,
        )


def test_weights_and_statistics_are_float32_in_a_bfloat16_run(tiny):
    abstract = _build(tiny("dtype=bfloat16")).abstract_state(sharding.make_mesh())
    types = {str(leaf.dtype) for leaf in jax.tree.leaves(abstract)}
    assert types == {"float32", "int32", "uint32"}


@pytest.mark.rounding
def test_a_run_is_put_together_from_its_data_s_sizes(tiny):
    recipe = _build(tiny("num_epochs=3", "schedule=staircase", "decay_epochs=1"))
    assert recipe.num_steps == 12
    assert recipe.model.num_classes == 10
    np.testing.assert_allclose(recipe.schedule(4) / recipe.schedule(0), 0.94, rtol=1e-6)


def test_blocks_are_in_the_network_s_order_and_have_weights(tiny):
    recipe = _build(tiny())
    params = recipe.abstract_state(sharding.make_mesh()).params
    blocks = recipe.blocks(params)
    assert sorted(blocks) == sorted(params)
    assert blocks[:2] == ["Conv2d_1a_3x3", "Conv2d_2a_3x3"]
    assert blocks[-3:] == ["Mixed_7c", "AuxLogits", "Logits"]


def test_weights_are_described_as_the_state_has_them(tiny):
    recipe, mesh = _build(tiny()), sharding.make_mesh()
    whole, weights = recipe.abstract_state(mesh), abstract_weights(recipe.model, 75, mesh)
    for name, tree in weights.items():
        assert jax.tree.all(jax.tree.map(lambda a, b: a == b, tree, getattr(whole, name)))
