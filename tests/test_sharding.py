"""Splitting over devices: order and content, and the same losses on 8 as on 1."""

import jax
import numpy as np
import pytest

from inception import sharding
from tests import processes


def test_to_devices_keeps_order_and_content_and_stays_a_little_ahead():
    taken = []

    def batches():
        for number in range(5):
            taken.append(number)
            yield {"x": np.full((4, 2), number)}

    stream = sharding.to_devices(sharding.make_mesh(), batches(), ahead=2)
    first = next(stream)
    assert len(taken) <= 3
    assert isinstance(first["x"], jax.Array)
    assert [int(batch["x"][0, 0]) for batch in [first, *stream]] == [0, 1, 2, 3, 4]


_PROGRAM = """
import json, sys
import jax, inception
from inception import sharding
from inception.data.sources import FakeSource
from inception.data.stream import train_stream
from inception.state import build
from inception.train_step import compile_step

config = inception.load_config("configs/digits.py", sys.argv[1:])
source = FakeSource(64, num_classes=10, image_size=90)
mesh = sharding.make_mesh()
training = build(config, num_classes=10, steps_per_epoch=4.0)
first, step = training.create_state(mesh), compile_step(training, mesh)
batches = sharding.to_devices(
    mesh,
    train_stream(
        source,
        seed=config.seed,
        image_size=config.image_size,
        batch_size=config.batch_size,
        augmentation=config.augmentation,
    ),
)
losses, norms = [], []
for _ in range(10):
    first, metrics = step(first, next(batches))
    losses.append(float(metrics["loss"]))
    norms.append(float(metrics["grad_norm"]))
print(json.dumps({"devices": mesh.size, "losses": losses, "grad_norms": norms}))
"""


def _train(devices: int, *arguments: str) -> dict:
    """The losses and gradient norms of ten steps on so many devices."""
    result = processes.result(processes.start(_PROGRAM, *arguments, devices=devices))
    assert result["devices"] == devices
    return result


@pytest.mark.parametrize(
    ("group", "tolerance"),
    [
        (8, 1e-5),  # a group fits on a device
        pytest.param(32, 1e-4, marks=pytest.mark.slow),  # it spans four
        pytest.param(0, 1e-4, marks=pytest.mark.slow),  # the whole batch is one
    ],
)
def test_losses_on_8_devices_are_those_on_1(group, tolerance):
    """The same batches, dropout and groups, over 10 steps on 64 images.

    With so small a learning rate that only they decide the losses: a fresh network turns the
    rounding of a sum over devices into per cents of its gradient (docs/decisions.md).
    """
    overrides = (
        "model.width_multiplier=0.05",
        "batch_size=64",
        "learning_rate_batch=64",
        "learning_rate=1e-6",
        f"model.batch_norm_group={group}",
    )
    one, eight = (_train(devices, *overrides) for devices in (1, 8))
    assert len(set(one["losses"])) == 10
    np.testing.assert_allclose(eight["losses"][0], one["losses"][0], rtol=1e-6)
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=tolerance)
    first = one["grad_norms"][0], eight["grad_norms"][0]
    np.testing.assert_allclose(*first, rtol=1e-4 if group == 8 else 0.1)
