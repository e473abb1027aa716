"""Layers against TensorFlow's operations and flax's own batch normalization."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.network.batch_norm import BatchNorm
from inception.network.fused import fold_batch_norm
from inception.network.layers import ConvBN
from inception.network.pools import AvgPool, max_pool_same
from inception.ops.max_pool import max_pool

pytestmark = pytest.mark.rounding


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(1.0, 2.0, shape).astype(np.float32)


def _apply_train(module: nn.Module, variables: dict, x: np.ndarray):
    return module.apply(variables, x, mutable=["batch_stats"])


def test_batch_norm_over_the_whole_batch_is_flax_batch_norm():
    x = _images(8, 5, 4, 3)
    ours = BatchNorm(decay=0.9, scale=True, group=0, train=True)
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-3)
    variables = theirs.init(jax.random.key(0), x)
    expected, expected_updates = _apply_train(theirs, variables, x)
    actual, updates = _apply_train(ours, variables, x)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            updates["batch_stats"][name], expected_updates["batch_stats"][name], rtol=1e-5
        )


def test_batch_norm_groups_are_separate_batches():
    x = _images(12, 3, 3, 2)
    grouped = BatchNorm(decay=0.9, group=4, train=True)
    variables = grouped.init(jax.random.key(0), x)
    together, updates = _apply_train(grouped, variables, x)
    parts = [_apply_train(grouped, variables, x[i : i + 4]) for i in (0, 4, 8)]
    np.testing.assert_allclose(together, np.concatenate([y for y, _ in parts]), atol=1e-6)
    mean_of_means = np.mean([u["batch_stats"]["mean"] for _, u in parts], axis=0)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], mean_of_means, atol=1e-6)


def test_batch_norm_normalizes_and_keeps_float32_statistics_in_bfloat16():
    x = jnp.asarray(100 + _images(8, 6, 6, 3), jnp.bfloat16)
    norm = BatchNorm(group=0, train=True)
    y, updates = _apply_train(norm, norm.init(jax.random.key(0), x), x)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
    y = np.asarray(y, np.float32)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=0.01)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=0.01)


def test_batch_norm_in_evaluation_uses_the_running_averages():
    x = _images(2, 3, 3, 2)
    norm = BatchNorm(epsilon=0.5)
    variables = {
        "params": {"bias": jnp.array([1.0, 2.0])},
        "batch_stats": {"mean": jnp.array([3.0, 4.0]), "var": jnp.array([0.5, 3.5])},
    }
    expected = (x - [3.0, 4.0]) / np.sqrt([1.0, 4.0]) + [1.0, 2.0]
    np.testing.assert_allclose(norm.apply(variables, x), expected, atol=1e-6)


def test_batch_norm_refuses_a_batch_that_is_no_multiple_of_the_group():
    norm = BatchNorm(group=4, train=True)
    variables = norm.init(jax.random.key(0), _images(4, 2, 2, 1))
    with pytest.raises(ValueError, match=r"a batch of 6 images .* batch_norm_group=4"):
        _apply_train(norm, variables, _images(6, 2, 2, 1))


def test_a_batch_smaller_than_the_group_is_one_group():
    x = _images(3, 4, 4, 2)
    small, whole = (BatchNorm(group=group, train=True) for group in (32, 0))
    variables = small.init(jax.random.key(0), x)
    np.testing.assert_array_equal(
        _apply_train(small, variables, x)[0], _apply_train(whole, variables, x)[0]
    )


@pytest.mark.parametrize(("multiplier", "features"), [(1.0, 80), (0.5, 40), (0.21, 16), (0.33, 26)])
def test_width_multiplier_rounds_down_but_not_below_16(multiplier, features):
    conv = ConvBN(80, width_multiplier=multiplier)
    assert conv.init_with_output(jax.random.key(0), _images(1, 4, 4, 3))[0].shape[-1] == features


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 7), (7, 1)])
def test_convolution_is_tensorflows(kernel, padding):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is the oracle")
    x = _images(2, 11, 9, 3)
    conv = ConvBN(16, kernel, 2, padding, relu=False, norm=None)
    variables = conv.init(jax.random.key(0), x)
    expected = tf.nn.conv2d(x, variables["params"]["conv"]["kernel"], 2, padding).numpy()
    np.testing.assert_allclose(conv.apply(variables, x), expected, atol=1e-5)


def test_pools_are_tensorflows():
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is the oracle")
    x = _images(2, 9, 8, 3)
    expected = tf.nn.avg_pool2d(x, 3, 1, "SAME").numpy()
    np.testing.assert_allclose(AvgPool()(x), expected, atol=1e-6)
    np.testing.assert_array_equal(max_pool(x), tf.nn.max_pool2d(x, 3, 2, "VALID").numpy())
    np.testing.assert_array_equal(max_pool_same(x), tf.nn.max_pool2d(x, 3, 1, "SAME").numpy())


def test_an_average_pool_that_counts_the_padding_divides_by_9_everywhere():
    x = np.pad(_images(2, 7, 6, 3), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.asarray(nn.avg_pool(x, (3, 3), padding="VALID"))
    actual = AvgPool(count_include_pad=True)(x[:, 1:-1, 1:-1])
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [False, True])
def test_folded_batch_norm_is_the_same_function(scale):
    x, rng = _images(2, 9, 9, 3), np.random.default_rng(1)
    norm = functools.partial(BatchNorm, scale=scale, epsilon=0.01)
    conv = ConvBN(16, (3, 3), norm=norm)
    shapes = jax.eval_shape(conv.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape).astype("f4"), shapes)
    folded = fold_batch_norm(variables, 0.01)
    assert folded.keys() == {"params"}
    actual = ConvBN(16, (3, 3), norm=None).apply(folded, x)
    expected = conv.apply(variables, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
