"""Splitting over devices: order and content, equal losses, and what crosses them."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from inception.distributed import sharding
from inception.errors import ConfigError
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


@dataclasses.dataclass(frozen=True, order=True)
class _Device:
    process_index: int
    id: int
    platform: str = "tpu"


def test_the_mesh_goes_from_process_to_process(monkeypatch):
    """Also where the numbers of a slice's devices do not."""
    devices = [_Device(number // 2 % 2, number) for number in range(8)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(sharding, "Mesh", lambda devices, *_, **__: list(devices))
    assert sharding.make_mesh() == sorted(devices)
    devices.pop()
    with pytest.raises(ConfigError, match=r"\{0: 4, 1: 3\}"):
        sharding.make_mesh()


_PROGRAM = """
import json, os, sys, zlib
import jax, inception
from inception.distributed import processes, sharding
from inception.plan.hlo import Program
from inception.plan.traffic import collectives
from inception.data.sources import FakeSource
from inception.data.stream import train_stream
from inception.training.state import build
from inception.training.step import TrainStep

processes.connect("JAX_NUM_PROCESSES" in os.environ)
steps, *fields = sys.argv[1:]
config = inception.load_config("configs/digits.py", fields)
source = FakeSource(64, num_classes=10, image_size=90)
mesh = sharding.make_mesh()
recipe = build(config, num_classes=10, steps_per_epoch=4.0)
state, step = recipe.abstract_state(mesh), TrainStep(recipe, mesh).jitted
examples = []

def batches():
    for batch in train_stream(
        source,
        seed=config.seed,
        image_size=config.image_size,
        batch_size=config.batch_size,
        augmentation=config.augmentation,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    ):
        examples.append([[int(n), zlib.crc32(x)] for n, x in zip(batch["example"], batch["image"])])
        yield batch

stream = sharding.to_devices(mesh, batches())
first = next(stream)
measured = jax.eval_shape(step, state, first)[1]
step = step.lower(state, first).compile()
metrics = []
if int(steps):
    state = recipe.create_state(mesh)
for batch in (first, *(next(stream) for _ in range(int(steps) - 1)))[: int(steps)]:
    state, measured = step(state, batch)
    metrics.append(jax.device_get(measured))
print(json.dumps({
    "devices": mesh.size,
    "losses": [float(each["loss"]) for each in metrics],
    "grad_norm": float(metrics[0]["grad_norm"]) if metrics else None,
    "metrics": sum(leaf.size for leaf in jax.tree.leaves(measured)),
    "examples": examples[: int(steps)],
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    "statistics": sum(leaf.size for leaf in jax.tree.leaves(state.batch_stats)),
    "collectives": [list(each) for each in collectives(Program(step.as_text()))],
}))
"""
# With so small a learning rate that only batches, dropout and groups decide the losses: a fresh
# network turns the rounding of a sum over devices into per cents of its gradient
# (docs/decisions.md).
_FIELDS = (
    "model.width_multiplier=0.05",
    "batch_size=64",
    "learning_rate_batch=64",
    "learning_rate=1e-6",
)


@functools.cache
def _train(devices: int, count: int, group: int, steps: int = 10) -> dict:
    """The step and its results on `devices` devices of `count` processes together."""
    fields = (str(steps), *_FIELDS, f"model.batch_norm_group={group}")
    if count == 1:
        started = [processes.start(_PROGRAM, *fields, devices=devices)]
    else:
        started = processes.start_together(count, _PROGRAM, *fields, devices=devices // count)
    results = [processes.result(process) for process in started]
    for one in results:
        assert one["devices"] == devices
        assert one["losses"] == results[0]["losses"]
    # Each process has its slice of every batch.
    slices = zip(*(one["examples"] for one in results), strict=True)
    return results[0] | {"examples": [[*itertools.chain(*parts)] for parts in slices]}


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("devices", "count", "group", "tolerance"),
    [
        (8, 1, 8, 1e-5),  # a group fits on a device
        (8, 1, 32, 1e-4),  # it spans four
        (8, 1, 0, 1e-4),  # the whole batch is one
        (2, 2, 8, 1e-5),
        (8, 4, 8, 1e-5),
    ],
)
@pytest.mark.slow
def test_losses_on_several_devices_and_processes_are_those_on_one(devices, count, group, tolerance):
    """The same batches, dropout and groups, over 10 steps on 64 images."""
    one, several = _train(1, 1, group), _train(devices, count, group)
    assert several["examples"] == one["examples"]
    assert len(set(one["losses"])) == 10
    np.testing.assert_allclose(several["losses"][0], one["losses"][0], rtol=1e-6)
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=tolerance)
    norms = one["grad_norm"], several["grad_norm"]
    np.testing.assert_allclose(*norms, rtol=1e-4 if group == 8 else 0.1)


@pytest.mark.slow
def test_devices_exchange_the_gradients_statistics_and_metrics_once_and_nothing_else():
    """In all-reduces of as many bytes: none of batch normalization's, none of data."""
    eight = _train(8, 1, 8, steps=0)
    kinds, sizes, *_ = zip(*eight["collectives"], strict=True)
    assert set(kinds) == {"all-reduce"}
    assert len(kinds) <= 3
    once = 4 * (eight["parameters"] + eight["statistics"])
    assert once <= sum(sizes) <= once + 4 * eight["metrics"] + 64


@pytest.mark.slow
def test_groups_that_span_devices_exchange_their_sums_in_every_layer():
    one, spanning = (_train(8, 1, group, steps=0) for group in (8, 32))
    assert len(spanning["collectives"]) > 94 > len(one["collectives"])
    assert _train(1, 1, 8, steps=0)["collectives"] == []
