"""Pools against TensorFlow's; the maximum's gradient against XLA's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.network import pools
from inception.network.pools import max_pool


@pytest.mark.parametrize("size", [(3, 3), (7, 8), (8, 7), (9, 9), (10, 6)])
def test_max_pools_gradient_goes_to_the_first_of_equal_maxima(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, (2, *size, 5)), jnp.float32)  # many are equal

    def plain(x):
        return nn.max_pool(x, (3, 3), strides=(2, 2))

    expected, pull_back = jax.vjp(plain, x)
    actual, ours = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(actual, expected)
    cotangent = jnp.asarray(rng.integers(1, 9, expected.shape), jnp.float32)
    np.testing.assert_array_equal(ours(cotangent)[0], pull_back(cotangent)[0])
    position = pools._first_maximum(x, actual)
    for way in pools._GRADIENTS.values():  # of all platforms
        np.testing.assert_array_equal(way(x, position, cotangent), pull_back(cotangent)[0])
