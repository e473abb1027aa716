"""benchmarks/optimizations.py: every optimization can be left out."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import optimizations
from inception.errors import UserError
from inception.network.model import Inception
from inception.ops.platforms import compiled_for, reference


def _traced(without: optimizations.Without, platform: str) -> str:
    """A tiny network's gradient, as it is traced for a platform."""
    model = Inception(10, width_multiplier=0.05, dropout_rate=0.0, fuse=without.fuse)
    images = jnp.zeros((2, 75, 75, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(variables, images):
        (logits, _), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits.sum()

    with reference(*without.operations), compiled_for(platform):
        return str(jax.make_jaxpr(jax.grad(loss))(variables, images))


@pytest.mark.slow
def test_the_step_without_an_optimization_is_another_program():
    names = ("fused network", "batch norm's gradient", "the maximum's gradient", "recomputation")
    without = [optimizations.Without(), *map(optimizations.OPTIMIZATIONS.get, names)]
    programs = {_traced(each, "cuda") for each in without}
    assert len(programs) == len(without)


def test_what_is_unknown_is_refused():
    for flag, said in (("--on=foo", "foo"), ("--images=0", "at least 1"), ("--without=x", "fused")):
        with pytest.raises(UserError, match=said):
            optimizations.main([flag])
