"""Plans of FID's extraction, with a stand-in for the compiled program."""

import jax
import pytest

from inception.distributed.sharding import make_mesh
from inception.fid.bridge import fids_model
from inception.fid.extract import Extractor
from inception.fid.moments import add, empty, of_shapes
from inception.plan import fid
from inception.plan.chips import CHIPS
from tests.fid.networks import MODEL, loaded, pictures


def test_float32_has_a_sixth_of_a_tpus_operations_and_a_gpus_own():
    assert fid.float32_operations(CHIPS["v5e"]) == pytest.approx(197e12 / 6)
    assert fid.float32_operations(CHIPS["h100"]) == pytest.approx(66.9e12, rel=1e-3)


def test_time_is_between_full_overlap_and_half_of_none():
    time = fid.image_time(CHIPS["v5e"], fid.Extraction(197e12 / 6, 819e9 / 4))
    assert (time.shortest, time.longest) == pytest.approx((1.0, 2.5))


def test_what_is_compiled_is_what_runs():
    """Shapes of an Extractor and of moments are those of real ones."""
    mesh = make_mesh()
    real, shapes = Extractor(loaded()), Extractor.abstract(MODEL, mesh=mesh)
    for one, other in zip(*map(jax.tree.leaves, (real, shapes)), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    for one, other in zip(*map(jax.tree.leaves, (empty(7, mesh), of_shapes(7, mesh))), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (other.shape, other.dtype, other.sharding)
    images = pictures(2, 64, 64)
    step = jax.eval_shape(
        lambda extract, moments: add(moments, extract.features(images)["pooled"]),
        shapes,
        of_shapes(108, mesh),
    )
    assert step.products.total.shape == (mesh.size, 108, 108)


def test_the_planned_network_is_fids():
    model = fids_model()
    assert (model.num_classes, model.mixed_7c_pool) == (1008, "max")
    assert not model.avg_pool_counts_padding


@pytest.mark.parametrize("flag", ["--topology=v5e:2x2", "--batch_size=0"])
def test_one_chip_and_positive_sizes(flag):
    with pytest.raises(SystemExit):
        fid.main(["--topology=v5e:1x1", flag])
