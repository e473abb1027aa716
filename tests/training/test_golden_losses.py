"""Twenty losses of the quick start's config, shrunk, at a tiny rate: what training computes.

A change of the data, the augmentation, the network, the losses or the initial weights shows here at
once. The rate is tiny so that rounding, which differs between processors, cannot grow. After an
intended change: python -m tests.training.test_golden_losses
"""

from pathlib import Path

import jax
import numpy as np
import pytest

import inception
from inception.data.datasets import train_batches
from inception.distributed import sharding
from inception.training.state import build
from inception.training.step import TrainStep
from tests.conftest import TINY, digits_source

pytestmark = pytest.mark.rounding

GOLDEN = Path(__file__).parent / "golden_losses.txt"
STEPS = 20


def _losses() -> np.ndarray:
    config = inception.load_config("configs/digits.py", [*TINY, "learning_rate=1e-7"])
    source, mesh = digits_source(slice(0, 160)), sharding.make_mesh()
    recipe = build(config, source.num_classes, len(source) / config.batch_size)
    step, state = TrainStep(recipe, mesh), recipe.create_state(mesh)
    state, losses = step.pack(state), []
    batches = train_batches(config, source, mesh, 0)
    for _ in range(STEPS):
        state, metrics = step(state, next(batches))
        losses.append(metrics["loss"])
    return np.asarray(jax.device_get(losses))


def test_twenty_losses_are_the_golden_ones():
    np.testing.assert_allclose(_losses(), np.loadtxt(GOLDEN), rtol=1e-5)


if __name__ == "__main__":
    np.savetxt(GOLDEN, _losses(), "%.7f")
