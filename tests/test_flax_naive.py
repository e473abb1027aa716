"""benchmarks/flax_naive.py: the obvious network computes what ours does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import flax_naive
from inception.benchmark.ours import made_up_variables
from inception.state import make_model
from tests.oracles import random_images

CLASSES = 7


def _both(config):
    """Both networks, and variables of ours that keep the signal alive."""
    model = make_model(config, CLASSES)
    variables = made_up_variables(model, config.image_size)
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


@pytest.mark.parametrize("base", ["digits", "v2", "table1", "figure8_plain"])
def test_the_trees_are_equal(tiny, base):
    model, naive, _ = _both(tiny(base=base))
    images = jnp.zeros((1, 75, 75, 3))
    ours = jax.eval_shape(model.init, jax.random.key(0), images)
    theirs = jax.eval_shape(naive.init, jax.random.key(0), images)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), dict(theirs)) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), dict(ours)
    )


def test_training_gives_the_same_logits_and_statistics(tiny):
    config = tiny("model.batch_norm_group=0", "model.dropout_rate=0.0", "image_size=139")
    model, naive, variables = _both(config)
    naive, images = naive.clone(fast_variance=False), random_images(139, 8)

    @jax.jit
    def both(variables, images):
        options = {"train": True, "mutable": ["batch_stats"]}
        (logits, endpoints), ours = model.apply(variables, images, **options)
        theirs_logits, theirs = naive.apply(variables, images, **options)
        return (logits, endpoints["aux_logits"], ours), (*theirs_logits, theirs)

    ours, theirs = both(variables, images)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        # Statistics; logits. Batch normalization magnifies rounding from layer to layer.
        tolerance = 3e-5 if a.ndim == 1 else 1e-4
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())
