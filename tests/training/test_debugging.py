"""Around a step: transfers from the host are refused, and a NaN is named by what makes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.training import losses
from inception.training.debugging import guarded
from inception.training.watch import TrainingError


def test_a_transfer_from_the_host_fails_and_arrays_on_the_devices_pass():
    step = jax.jit(lambda x: x + 1)
    there = jax.device_put(np.ones(3, np.float32))
    with guarded(1, nans=False):
        result = step(there)
    np.testing.assert_array_equal(result, 2)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"), guarded(1, False):
        step(np.ones(3, np.float32))


def test_a_nan_is_named_by_its_step_operation_and_line():
    logits, targets = jnp.array([[0.0, jnp.inf]]), jnp.array([[0.5, 0.5]])
    step = jax.jit(lambda: losses.heads_loss(logits, {}, targets, 0.0))
    with pytest.raises(TrainingError, match=r"step 7: .*nan.* losses\.py:\d+ in heads_loss"):  # noqa: SIM117
        with guarded(7, nans=True):
            step()


def test_what_makes_no_nan_passes():
    with guarded(7, nans=True):
        assert jax.jit(jnp.sum)(jnp.ones(3)) == 3
