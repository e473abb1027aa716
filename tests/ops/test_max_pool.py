"""max_pool.py: the gradients of all platforms against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.ops import max_pool as ops
from inception.ops.max_pool import max_pool
from inception.ops.platforms import reference


@pytest.mark.parametrize("size", [(3, 3), (7, 8), (8, 7), (9, 9), (10, 6)])
def test_max_pools_gradient_goes_to_the_first_of_equal_maxima(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, (2, *size, 5)), jnp.float32)  # many are equal

    with reference("max_pool"):
        expected, pull_back = jax.vjp(max_pool, x)
    actual, ours = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(actual, expected)
    cotangent = jnp.asarray(rng.integers(1, 9, expected.shape), jnp.float32)
    np.testing.assert_array_equal(ours(cotangent)[0], pull_back(cotangent)[0])
    position = ops._argmax(x, actual)
    for gradient in ops.GRADIENTS.values():  # of all platforms
        np.testing.assert_array_equal(gradient(x, position, cotangent), pull_back(cotangent)[0])
