"""benchmarks/flax_naive.py: the obvious network computes what ours does."""

import jax
import numpy as np
import pytest

from benchmarks import flax_naive
from benchmarks.ours import random_variables
from inception.network.model import make_model
from tests.oracles import in_float64, random_images

pytestmark = pytest.mark.rounding

CLASSES = 7


def _both(config):
    """Both networks, and variables of ours that keep the signal alive."""
    model = make_model(config, CLASSES)
    variables = random_variables(model, config.image_size)
    return model, flax_naive.network(config, CLASSES), variables


@pytest.mark.parametrize(
    "fields", [(), ("model.batch_norm_scale=true", "model.avg_pool_counts_padding=true")]
)
def test_same_variables_give_the_same_logits(tiny, fields):
    model, naive, variables = _both(tiny("model.batch_norm_group=0", *fields))
    images = random_images(75, 4)
    ours, _ = jax.jit(model.apply)(variables, images)
    theirs, _ = jax.jit(naive.apply)(variables, images)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * np.abs(ours).max())


@pytest.mark.usefixtures("x64")
def test_training_gives_the_same_logits_and_statistics(tiny):
    """In float64: batch normalization magnifies float32's rounding from layer to layer."""
    config = tiny("model.batch_norm_group=0", "model.dropout_rate=0.0", "image_size=139")
    model, naive, variables = _both(config)
    model = model.clone(dtype=np.float64)
    naive = naive.clone(dtype=np.float64, fast_variance=False)
    options = {"train": True, "mutable": ["batch_stats"]}

    @jax.jit
    def both(variables, images):
        (logits, endpoints), ours = model.apply(variables, images, **options)
        theirs_logits, theirs = naive.apply(variables, images, **options)
        return (logits, endpoints["aux_logits"], ours), (*theirs_logits, theirs)

    ours, theirs = both(*in_float64((variables, random_images(139, 8))))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * np.abs(a).max())
