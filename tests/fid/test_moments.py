"""Moments that devices sum up are those of all features in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception import fid
from inception.fid.bridge import UserError, make_mesh, split
from inception.fid.extract import Extractor
from inception.fid.moments import Sum
from tests import processes
from tests.fid.networks import loaded, pictures

_add = jax.jit(fid.add)


def _features(count, d=7, seed=0, mean=0.4, spread=1.0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return (mean + spread * np.maximum(rng.normal(size=(count, d)) @ mix, 0)).astype(np.float32)


def difference(statistics, features) -> float:
    """The largest relative difference from NumPy's moments; infinite if the form is wrong."""
    features = np.asarray(features, np.float64)
    mean, covariance = features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))
    of_mean = (np.abs(statistics.mean - mean) / np.maximum(np.abs(mean), 1e-300)).max()
    of_covariance = np.abs(statistics.covariance - covariance).max() / np.abs(covariance).max()
    of_count = abs(statistics.count - len(features))
    asymmetry = np.abs(statistics.covariance - statistics.covariance.T).max()
    return max(of_mean, of_covariance, np.inf if of_count or asymmetry else 0.0)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_masked_batches_count_what_is_not_masked(masks):
    moments, seen = fid.empty(7), []
    for number, mask in enumerate(np.asarray(masks)):
        batch = _features(4, seed=number)
        batch[~mask] = np.nan  # padding may hold anything
        moments = _add(moments, batch, mask)
        seen += list(batch[mask])
    if len(seen) < 2:
        with pytest.raises(UserError, match="a covariance needs at least 2"):
            fid.finish(moments)
    else:
        assert difference(fid.finish(moments), seen) <= 1e-6


def test_a_large_mean_costs_no_digits():
    """1e4 +- 1e-2: raw float32 products would be off by more than the variance."""
    features = _features(64, mean=1e4, spread=1e-2)
    moments = fid.empty(7)
    for batch in np.split(features, 4):
        moments = _add(moments, batch)
    assert difference(fid.finish(moments), features) <= 1e-5


def test_what_rounding_loses_is_kept():
    """20,000 small numbers: a plain float32 sum would lose 5e-6 of it."""
    values = np.random.default_rng(0).uniform(0, 1, 20_000).astype(np.float32)

    @jax.jit
    def summed(values):
        zero = jnp.zeros(())
        return jax.lax.scan(lambda total, x: (total.plus(x), None), Sum(zero, zero), values)[0]

    total = summed(values)
    exact = values.sum(dtype=np.float64)
    assert total.lost != 0
    assert abs(float(total.total) - exact) > 1e-6 * exact
    assert abs(float(total.total) + float(total.lost) - exact) < 1e-9 * exact


def test_no_type_or_rank_is_promoted():
    """Whoever turns on JAX's checks of them can add moments in a program of their own."""
    features, mask = np.zeros((4 * jax.device_count(), 7), np.float32), None
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        added = jax.eval_shape(fid.add, fid.empty(7), features, mask)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(added)} == {"float32", "int32"}


def test_constant_features_have_no_variance():
    moments = _add(fid.empty(3), np.full((4, 3), 0.1, np.float32))
    statistics = fid.finish(moments)
    np.testing.assert_array_equal(statistics.covariance, np.zeros((3, 3)))
    np.testing.assert_allclose(statistics.mean, np.float32(0.1))


def test_features_that_are_not_finite_are_refused():
    bad = _features(4)
    bad[2, 3] = np.nan
    with pytest.raises(UserError, match="not finite"):
        fid.finish(_add(fid.empty(7), bad))


@pytest.mark.parametrize("shape", [(4, 6), (4,), (4, 7, 1)])
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(UserError, match=r"must be \[batch, 7\]"):
        fid.add(fid.empty(7), jnp.zeros(shape))


def test_moments_know_where_their_features_come_from():
    extract = Extractor(loaded(), "clean", layers=["pooled", "spatial", "logits"])
    moments = fid.empty(extract)
    assert moments.keys() == {"pooled", "spatial"}
    images = jnp.asarray(pictures(4, 64, 80))

    @jax.jit
    def step(extract, moments, images):
        return fid.add(moments, extract.features(images))

    statistics = fid.finish(step(extract, moments, images))
    assert statistics["spatial"].origin == extract.origin("spatial")
    assert difference(statistics["pooled"], extract.features(images)["pooled"]) <= 1e-5


def test_moments_survive_a_checkpoint(tmp_path):
    """To the bits of a run that was not interrupted."""
    import orbax.checkpoint as ocp

    first, second = np.split(_features(8), 2)
    moments = _add(fid.empty({"own": 7}), {"own": first})
    with ocp.StandardCheckpointer() as saved:
        saved.save(tmp_path / "moments", moments)
        saved.wait_until_finished()
        restored = saved.restore(tmp_path / "moments", fid.empty({"own": 7}))
    straight, resumed = (_add(each, {"own": second}) for each in (moments, restored))
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    assert resumed["own"].origin.layer == "own"


_DEVICES = """
import jax, json, numpy as np
from jax.sharding import PartitionSpec
from inception import fid
from inception.fid.bridge import make_mesh, split
from tests.fid.test_moments import _features, difference
mesh = make_mesh()
moments, features = fid.empty(7, mesh), _features(48)
put = lambda batch: jax.device_put(batch, split(mesh))
step = jax.jit(fid.add, donate_argnums=0)
text = step.lower(moments, put(features[:16])).compile().as_text()
found = lambda text: [word for word in ("all-", "collective-", "reduce-scatter") if word in text]
square = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
rows = jax.device_put(features, jax.NamedSharding(square, PartitionSpec("data")))
on_square = jax.jit(fid.add).lower(fid.empty(7, square), rows).compile()
messages = found(text) + found(on_square.as_text())
assert difference(fid.finish(on_square(fid.empty(7, square), rows)), features) <= 1e-6
mapped = jax.jit(jax.shard_map(fid.add, mesh=mesh, in_specs=PartitionSpec("data"),
                               out_specs=PartitionSpec("data")))
inside = mapped(fid.empty(7, mesh), put(features))
for batch in np.split(features, 3):
    moments = step(moments, put(batch))
assert difference(fid.finish(moments), features) <= 1e-6
assert difference(fid.finish(inside), features) <= 1e-6
try:
    fid.add(moments, features[:7])
except fid.UserError as error:
    print(json.dumps([messages, str(error)]))
"""


def test_devices_sum_on_their_own():
    messages, error = processes.result(processes.start(_DEVICES, devices=8))
    assert messages == []
    assert "a multiple of the 8 device(s)" in error


_TOGETHER = """
import jax, json, numpy as np
from inception.distributed import processes
processes.connect(save_on_sigterm=False)
from inception import fid
from inception.fid.bridge import make_mesh, split
from tests.fid.test_moments import _features
mesh = make_mesh()
features = _features(24)
moments = fid.empty(7, mesh)
for batch in np.split(features, 3):
    own = np.split(batch, jax.process_count())[jax.process_index()]
    batch = jax.make_array_from_process_local_data(split(mesh), own)
    moments = jax.jit(fid.add)(moments, batch)
statistics = fid.finish(moments)
print(json.dumps([statistics.count, statistics.mean.tolist(), statistics.covariance.tolist()]))
"""


def test_processes_get_one_number():
    first, second = map(processes.result, processes.start_together(2, _TOGETHER, devices=2))
    assert first == second
    count, mean, covariance = first
    statistics = fid.Statistics(np.asarray(mean), np.asarray(covariance), count)
    assert difference(statistics, _features(24)) <= 1e-6


def test_a_mesh_of_some_devices_will_do():
    mesh = make_mesh(local=True)
    moments = _add(fid.empty(7, mesh), jax.device_put(_features(8), split(mesh)))
    assert difference(fid.finish(moments), _features(8)) <= 1e-6
