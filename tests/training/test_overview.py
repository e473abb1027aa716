"""The table of a network's stages."""

import jax
import numpy as np
from clu import parameter_overview

from inception.distributed import sharding
from inception.training import overview
from inception.training.state import build


def test_every_stage_with_its_share_and_whether_it_is_trained(tiny):
    recipe = build(tiny(), num_classes=10, steps_per_epoch=4.0)
    params = recipe.abstract_state(sharding.make_mesh()).params
    lines = overview.table(params, frozen=["Mixed_5b"]).splitlines()
    rows = {row[0]: row[1:] for row in (line.strip("| ").split() for line in lines) if row}
    count = lambda tree: parameter_overview.count_parameters(tree)  # noqa: E731
    for stage, tree in params.items():
        arrays, number, share, trained = (cell for cell in rows[stage] if cell != "|")
        assert int(arrays) == len(jax.tree.leaves(tree))
        assert int(number.replace(",", "")) == count(tree)
        np.testing.assert_allclose(float(share[:-1]), 100 * count(tree) / count(params), atol=0.06)
        assert trained == ("no" if stage == "Mixed_5b" else "yes")
