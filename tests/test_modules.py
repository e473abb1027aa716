"""The modules as they are computed, against the obvious Flax code: one convolution per branch."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import flax_naive
from inception import modules, pools
from inception.batch_norm import BatchNorm
from inception.layers import ConvBN, siblings
from tests.oracles import in_float64

pytestmark = pytest.mark.rounding

WIDTH = 0.25
POOLS = {
    counts: (
        partial(pools.avg_pool_same, counts_padding=counts),
        partial(nn.avg_pool, window_shape=(3, 3), padding="SAME", count_include_pad=counts),
    )
    for counts in (False, True)
}
CONV = partial(
    ConvBN,
    width_multiplier=WIDTH,
    dtype=jnp.float64,
    batch_norm=partial(BatchNorm, decay=0.9, scale=True, group=0, train=True),
)
NAIVE_CONV = partial(
    flax_naive.ConvBN,
    width_multiplier=WIDTH,
    dtype=jnp.float64,
    batch_norm=partial(
        nn.BatchNorm,
        use_running_average=False,
        momentum=0.9,
        epsilon=1e-3,
        use_fast_variance=False,
        dtype=jnp.float64,
    ),
)


def _pairs() -> list:
    return list(_all_pairs())


def _all_pairs():
    for counts, (pool, naive) in POOLS.items():
        yield pytest.param(
            modules.Figure5(CONV, 64, pool, short=5),
            flax_naive.Mixed5(NAIVE_CONV, naive, 64),
            13,
            id=f"figure 5, padding counts: {counts}",
        )
        yield pytest.param(
            modules.Figure6(CONV, 160, pool),
            flax_naive.Mixed6(NAIVE_CONV, naive, 160),
            9,
            id=f"figure 6, padding counts: {counts}",
        )
        yield pytest.param(
            modules.Figure7(CONV, pool),
            flax_naive.Mixed7(NAIVE_CONV, naive),
            8,
            id=f"figure 7, padding counts: {counts}",
        )
    reductions = {
        modules.branches_6a: flax_naive.Mixed6a,
        modules.branches_7a: flax_naive.Mixed7a,
    }
    for branches, naive in reductions.items():
        yield pytest.param(
            modules.Figure10(CONV, branches), naive(NAIVE_CONV), 13, id=branches.__name__
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("ours", "naive", "grid"), _pairs())
def test_outputs_gradients_and_statistics_are_the_naive_ones(ours, naive, grid):
    """In float64: in float32 five layers of batch statistics bring rounding near a tolerance."""
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (4, grid, grid, 24))
    variables = in_float64(naive.init(jax.random.key(0), x))
    shapes = jax.eval_shape(ours.init, jax.random.key(0), x)
    assert jax.tree.structure(shapes) == jax.tree.structure(variables)

    @partial(jax.jit, static_argnums=0)
    def run(module, params, x, cotangent):
        def outputs(params, x):
            both = {"params": params, "batch_stats": variables["batch_stats"]}
            return module.apply(both, x, mutable=["batch_stats"])

        y, pull_back, statistics = jax.vjp(outputs, params, x, has_aux=True)
        return y, statistics, pull_back(cotangent)

    y_shape = jax.eval_shape(lambda: naive.apply(variables, x, mutable=["batch_stats"])[0]).shape
    cotangent = rng.normal(size=y_shape)
    actual = run(ours, variables["params"], x, cotangent)
    expected = run(naive, variables["params"], x, cotangent)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(other).max())


@pytest.mark.parametrize("pool", [pools.avg_pool_same, pools.max_pool_same])
@pytest.mark.parametrize("batch_norm", [partial(BatchNorm, train=True), None])
def test_siblings_are_each_convolution_alone(pool, batch_norm):
    class Pair(nn.Module):
        together: bool

        @nn.compact
        def __call__(self, x):
            conv = partial(ConvBN, batch_norm=batch_norm)
            convs = conv(16, name="plain"), conv(24, pool=pool, relu=False, name="pooled")
            return siblings(x, *convs) if self.together else tuple(conv(x) for conv in convs)

    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (4, 6, 5, 8)), jnp.float32)
    variables = Pair(True).init(jax.random.key(0), x)
    mutable = ["batch_stats"]
    run = partial(jax.jit(nn.apply(Pair.__call__, Pair(True), mutable=mutable)), variables)
    plain = partial(jax.jit(nn.apply(Pair.__call__, Pair(False), mutable=mutable)), variables)
    for one, other in zip(jax.tree.leaves(run(x)), jax.tree.leaves(plain(x)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
