"""benchmarks/levers.py: every optimization can be left out, and what is unknown is refused."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import levers
from inception.network.model import Inception
from inception.ops.platforms import compiled_for, reference


def _traced(without: levers.Without, platform: str) -> str:
    """A tiny network's gradient, as it is traced for a platform."""
    model = Inception(10, width_multiplier=0.05, dropout_rate=0.0, fuse=without.fuse)
    images = jnp.zeros((2, 75, 75, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(variables, images):
        (logits, _), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits.sum()

    with reference(*without.operations), compiled_for(platform):
        return str(jax.make_jaxpr(jax.grad(loss))(variables, images))


@pytest.mark.parametrize(
    "name", ["fused network", "batch norm's gradient", "the maximum's gradient", "recomputation"]
)
def test_the_step_without_an_optimization_is_another_program(name):
    whole = _traced(levers.Without(), "cuda")
    assert _traced(levers.OPTIMIZATIONS[name], "cuda") != whole
    assert _traced(levers.Without(), "cuda") == whole


@pytest.mark.parametrize(
    ("flag", "word"),
    [("--on=foo", "foo"), ("--images=0", "at least 1"), ("--without=x", "fused network")],
)
def test_what_is_not_known_is_refused(flag, word, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["levers", flag])
    with pytest.raises(SystemExit):
        levers.main()
    assert word in capsys.readouterr().err
