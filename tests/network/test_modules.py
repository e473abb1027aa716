"""modules.py and fused.py: each figure as drawn, fused, and of Flax's own layers."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import flax_naive
from inception.network import fused, modules
from inception.network.batch_norm import BatchNorm
from inception.network.layers import ConvBN
from inception.network.pools import AvgPool, max_pool_same
from inception.ops.platforms import reference
from tests.oracles import in_float64

pytestmark = pytest.mark.usefixtures("x64")

WIDTH = 0.25
NORMS = {
    "with scale": partial(BatchNorm, decay=0.9, scale=True, group=0, train=True),
    "without scale": partial(BatchNorm, decay=0.9, group=2, train=True),
    "folded": None,
}
FIGURES = {
    "figure 5": (partial(modules.Figure5, projection=64, short=5), 13),
    "figure 5, linear unit": (partial(modules.Figure5, projection=64, relu_between=False), 13),
    "figure 6": (partial(modules.Figure6, features=160), 9),
    "figure 6, full": (partial(modules.Figure6, features=160, factorization="full"), 9),
    "figure 7": (modules.Figure7, 8),
    "figure 7, unexpanded": (partial(modules.Figure7, expanded=False), 8),
    "figure 7, FID": (partial(modules.Figure7, pool=max_pool_same), 8),
    "figure 9": (partial(modules.Figure9, branches=modules.branches_7a), 13),
    "figure 10, 6a": (partial(modules.Figure10, branches=modules.branches_6a), 13),
    "figure 10, 7a": (partial(modules.Figure10, branches=modules.branches_7a), 13),
}
COUNTING = {"figure 5", "figure 6", "figure 7"}  # their average pools may count the padding


def _run(figure: nn.Module, variables: dict, x: jax.Array):
    """Output, new statistics, and the gradients of a sum of it with random weights."""
    shape = jax.eval_shape(lambda: figure.apply(variables, x, mutable=["batch_stats"])[0]).shape
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape))

    @jax.jit
    def run(params, x):
        def outputs(params, x):
            return figure.apply({**variables, "params": params}, x, mutable=["batch_stats"])

        y, pull_back, statistics = jax.vjp(outputs, params, x, has_aux=True)
        return y, statistics, pull_back(cotangent)

    return run(variables["params"], x)


def _are_close(ones, others) -> bool:
    """Whether all leaves agree to 1e-10 of the largest value; an error says where not.

    In float32 five layers of batch statistics would bring rounding near a tolerance.
    """
    for one, other in zip(jax.tree.leaves(ones), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(other).max())
    return True


def _variables(figure: nn.Module, x: jax.Array) -> dict:
    """Random ones, away from the ReLU's edge, where rounding may switch a pixel's gradient off."""
    variables = dict(in_float64(figure.init(jax.random.key(0), x)))
    variables["params"] = jax.tree.map_with_path(
        lambda path, leaf: leaf + 2 if path[-1].key == "bias" else leaf, variables["params"]
    )
    return variables


def _input(grid: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(1, 2, (4, grid, grid, 24)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", FIGURES)
def test_a_fused_figure_is_the_figure_as_drawn(name, norm):
    make, grid = FIGURES[name]
    conv = partial(ConvBN, width_multiplier=WIDTH, norm=NORMS[norm], dtype=np.float64)
    x = _input(grid)
    drawn = make(conv)
    variables = _variables(drawn, x)
    assert _are_close(
        _run(make(conv, concat=fused.concat), variables, x), _run(drawn, variables, x)
    )


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_that_of_flaxs_own_layers(name, counts):
    make, grid = FIGURES[name]
    if name in COUNTING:
        make = partial(make, pool=AvgPool(count_include_pad=counts))
    elif counts:
        pytest.skip("has no average pool")
    ours = partial(ConvBN, width_multiplier=WIDTH, norm=NORMS["with scale"], dtype=np.float64)
    flax_norm = partial(
        nn.BatchNorm,
        use_running_average=False,
        momentum=0.9,
        epsilon=1e-3,
        use_fast_variance=False,
    )
    theirs = partial(flax_naive.ConvBN, width_multiplier=WIDTH, norm=flax_norm, dtype=np.float64)
    x = _input(grid)
    variables = _variables(make(ours), x)
    with reference("max_pool"):
        expected = _run(make(theirs), variables, x)
    assert _are_close(_run(make(ours), variables, x), expected)
