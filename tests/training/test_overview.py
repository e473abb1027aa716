"""The table of a network's stages."""

import jax
import numpy as np
from clu import parameter_overview

from inception.distributed import sharding
from inception.training import overview
from inception.training.state import build


def test_every_stage_in_order_with_its_share_and_whether_it_is_trained(tiny):
    recipe = build(tiny("freeze_until=Conv2d_2a_3x3"), num_classes=10, steps_per_epoch=4.0)
    params = recipe.abstract_state(sharding.make_mesh()).params
    _, _, *rows = (line.split() for line in overview.table(params, recipe).splitlines())
    assert [row[0] for row in rows] == recipe.blocks(params)
    for stage, number, share, trained in rows:
        count = parameter_overview.count_parameters(params[stage])
        assert int(number.replace(",", "")) == count
        total = sum(leaf.size for leaf in jax.tree.leaves(params))
        np.testing.assert_allclose(float(share[:-1]), 100 * count / total, atol=0.06)
        assert trained == ("no" if stage in ("Conv2d_1a_3x3", "Conv2d_2a_3x3") else "yes")
