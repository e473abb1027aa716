"""The optimizer against TensorFlow's own RMSProp and momentum operations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inception
from inception.training import optimizers

pytestmark = pytest.mark.rounding

SHAPE = (20, 7)
STEPS = 50


def _config(*overrides: str):
    return inception.load_config("configs/v3.py", overrides)


def _gradients() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 3, SHAPE) for _ in range(STEPS)]


def _schedule(step):
    """A learning rate that changes after 20 steps."""
    return jnp.where(step < 20, 0.045, 0.045 * 0.94)


def _ours(config) -> np.ndarray:
    params = {"bias": jnp.ones(SHAPE, jnp.float64)}
    optimizer = optimizers.make_optimizer(config, _schedule)
    state = optimizer.init(params)
    for gradient in _gradients():
        updates, state = optimizer.update({"bias": gradient}, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["bias"])


# In float64: fifty steps add up float32's rounding.
@pytest.mark.usefixtures("x64")
def test_rmsprop_is_tensorflows_over_a_change_of_learning_rate():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is the oracle")
    variable = tf.Variable(np.ones(SHAPE))
    mean_square = tf.Variable(np.ones(SHAPE))  # TF1 starts the mean square at 1
    momentum = tf.Variable(np.zeros(SHAPE))
    for step, gradient in enumerate(_gradients()):
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=mean_square.handle,
            mom=momentum.handle,
            lr=np.float64(_schedule(step)),
            rho=np.float64(0.9),
            momentum=np.float64(0.9),
            epsilon=np.float64(1.0),
            grad=gradient,
        )
    ours = _ours(_config("clip_norm=0.0"))
    np.testing.assert_allclose(ours, variable.numpy(), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_momentum_is_tensorflows_over_a_change_of_learning_rate():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is the oracle")
    variable = tf.Variable(np.ones(SHAPE))
    accumulator = tf.Variable(np.zeros(SHAPE))
    for step, gradient in enumerate(_gradients()):
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=accumulator.handle,
            lr=np.float64(_schedule(step)),
            grad=gradient,
            momentum=np.float64(0.9),
        )
    ours = _ours(_config("clip_norm=0.0", "optimizer=momentum"))
    np.testing.assert_allclose(ours, variable.numpy(), rtol=1e-12)


def _first_update(config, params, grads):
    optimizer = optimizers.make_optimizer(config, lambda _: 1.0)
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_weight_decay_pulls_kernels_only_and_is_not_clipped():
    params = {"conv": {"kernel": jnp.full((3, 3), 5.0)}, "bn": {"bias": jnp.full((3,), 5.0)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    config = _config("optimizer=momentum", "weight_decay=10.0", "clip_norm=2.0")
    updates = _first_update(config, params, zeros)
    np.testing.assert_allclose(updates["conv"]["kernel"], -10.0 * 5.0)
    np.testing.assert_array_equal(updates["bn"]["bias"], 0)


def test_decayed_kernels_are_the_convolution_and_linear_ones():
    model = inception.Inception(10, batch_norm_scale=True)
    images = jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    ranks = jax.tree.map(
        lambda leaf, decayed: (leaf.ndim > 1) == decayed, params, optimizers.kernels(params)
    )
    assert all(jax.tree.leaves(ranks))


def test_the_gradient_is_clipped_by_its_global_norm():
    params = {"a": jnp.zeros(4), "b": jnp.zeros(9)}
    config = _config("optimizer=momentum", "clip_norm=2.0")
    large = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 7.0), params)
    np.testing.assert_allclose(optax.tree.norm(_first_update(config, params, large)), 2, 1e-6)
    small = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), params)
    np.testing.assert_allclose(_first_update(config, params, small)["a"], -0.1, rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["momentum", "rmsprop"])
def test_the_body_may_learn_slower_than_the_heads(optimizer):
    names = ["Mixed_5b", "Logits", "AuxLogits"]
    params = {name: {"kernel": jnp.full((3, 3), 5.0)} for name in names}
    fields = [f"optimizer={optimizer}", "weight_decay=0.1"]
    plain = _first_update(_config(*fields), params, params)
    slower = _first_update(_config(*fields, "body_learning_rate_factor=0.25"), params, params)
    for name, factor in zip(names, (0.25, 1, 1), strict=True):
        np.testing.assert_allclose(slower[name]["kernel"], factor * plain[name]["kernel"])


def test_staircase_falls_by_094_every_two_epochs():
    schedule = optimizers.learning_rate(_config("batch_size=1600"), steps_per_epoch=100.0)
    values = [float(schedule(step)) for step in (0, 199, 200, 399, 400)]
    np.testing.assert_allclose(values, 0.045 * 0.94 ** np.array([0, 0, 1, 1, 2]), rtol=1e-6)


def test_the_learning_rate_grows_with_the_batch():
    peaks = [
        float(optimizers.learning_rate(_config(f"batch_size={size}"), 100.0)(0))
        for size in (1600, 3200)
    ]
    np.testing.assert_allclose(peaks, [0.045, 0.09], rtol=1e-6)


def test_cosine_warms_up_and_ends_at_zero():
    overrides = ["schedule=cosine", "warmup_epochs=2.0", "num_epochs=10.0", "batch_size=1600"]
    schedule = optimizers.learning_rate(_config(*overrides), steps_per_epoch=10.0)
    values = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(values, [0, 0.0225, 0.045, 0.0225, 0], atol=1e-7)


@pytest.mark.parametrize(("epochs", "steps"), [(100.0, 4490), (0.5, 22), (0.001, 1)])
def test_number_of_steps(epochs, steps):
    assert optimizers.num_steps(_config(f"num_epochs={epochs}"), steps_per_epoch=44.9) == steps
