"""What each rearrangement of the training step is worth: the step without it, beside the whole.

    python -m benchmarks.levers --on=cpu [--rounds=5]
    python -m benchmarks.levers --on=h100 --images=256
    python -m benchmarks.levers --on=v5e:2x2 --images=128 [--without="packed state"]

On a CPU the steps are timed in turns, float32. For a GPU or TPU, which need not be there, they are
compiled, bfloat16: memory traffic as inception/cost/traffic.py counts it, and a GPU's kernels.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from tabulate import tabulate

from inception import augment, config, processes, sharding, state
from inception.benchmark.ours import made_up_batch
from inception.benchmark.work import OURS, Work
from inception.config import flatten
from inception.doctor import absent
from inception.errors import UserError
from inception.network import batch_norm, pools
from inception.ops import convolution
from inception.train_step import Step

CLASSES, STEPS_PER_EPOCH = 1000, 1000.0
GIB = 2**30


def plain_normalize(x, scale, bias, epsilon, relu, pool=None):
    """As `batch_norm.normalize`, with the gradient that JAX derives."""
    wide = x.astype(jnp.float32)
    mean, var = wide.mean((1, 2, 3), keepdims=True), wide.var((1, 2, 3), keepdims=True)
    y = (wide - mean) * jax.lax.rsqrt(var + epsilon) * scale + bias
    y = batch_norm._pooled(pool, (jax.nn.relu(y) if relu else y).astype(x.dtype))
    return y, *(jax.lax.stop_gradient(each[:, 0, 0, 0]) for each in (mean, var))


def _drawn(config: ConfigDict, num_classes: int) -> Any:
    return _make_model(config, num_classes).clone(as_drawn=True)


_make_model = state.make_model
_ways = dict.fromkeys(pools._GRADIENTS, pools._select_and_scatter)
LEVERS: dict[str, list[Callable[[], AbstractContextManager]]] = {
    "siblings and early maxima": [partial(mock.patch.object, state, "make_model", _drawn)],
    "batch norm's gradient": [partial(mock.patch.object, batch_norm, "normalize", plain_normalize)],
    "the maximum's gradient": [partial(mock.patch.dict, pools._GRADIENTS, _ways)],
    "oneDNN's convolutions": [
        partial(mock.patch.object, convolution, "is_onednn_used", lambda dtype: False)
    ],
    "computing again": [
        partial(mock.patch.object, module, "barrier", lambda arrays, *_: arrays)
        for module in (augment, batch_norm)
    ],
    "packed state": [partial(mock.patch.object, absent, "Step", partial(Step, packed=False))],
}


class Without:
    """Leaves a lever out; "" leaves none out."""

    def __init__(self, lever: str):
        self._patches = [patch() for patch in LEVERS.get(lever, [])]

    def __enter__(self) -> None:
        for patch in self._patches:
            patch.__enter__()

    def __exit__(self, *error: Any) -> None:
        for patch in reversed(self._patches):
            patch.__exit__(*error)


def timed(levers: list[str], rounds: int, images: int) -> list[dict]:
    """Seconds of a step on this machine, in turns."""
    fields = config.load("configs/v3.py", ["augmentation=none", f"batch_size={images}"])
    batch_of = Work(OURS, "train", 0, flatten(fields), CLASSES)
    mesh = sharding.make_mesh()
    batch = next(sharding.to_devices(mesh, [made_up_batch(batch_of)]))
    steps = {}
    for lever in ["", *levers]:
        with Without(lever):
            training = state.build(fields, CLASSES, STEPS_PER_EPOCH)
            jitted = Step(training, mesh).jitted
            steps[lever] = jitted.lower(training.abstract_state(mesh), batch).compile()
    current = training.create_state(mesh)
    seconds: dict[str, list[float]] = {lever: [] for lever in steps}
    for _ in range(rounds + 1):
        for lever, step in steps.items():
            start = time.perf_counter()
            current, _ = jax.block_until_ready(step(current, batch))
            seconds[lever].append(time.perf_counter() - start)
    ratios = {
        lever: [one / whole for one, whole in zip(each, seconds[""], strict=True)][1:]
        for lever, each in seconds.items()
    }
    return [
        {
            "without": lever or "nothing",
            "seconds": f"{statistics.median(seconds[lever][1:]):.2f}",
            "of the whole step's": f"{statistics.median(each):.2f} ({min(each):.2f} to "
            f"{max(each):.2f})",
        }
        for lever, each in ratios.items()
    ]


def compiled(levers: list[str], name: str, images: int) -> list[dict]:
    """What the programs for chips that are not here say."""
    topology = absent.parse_topology(name)
    fields = config.load(
        "configs/v3.py", ["dtype=bfloat16", f"batch_size={images * topology.size}"]
    )
    rows = []
    for lever in ["", *levers]:
        with Without(lever):
            program = absent.compile_for(topology, fields, images, CLASSES)
        moved = sum(program.moved.values()) / program.images / 1e6
        row = {"without": lever or "nothing", "MB an image": f"{moved:.0f}"}
        row["GiB"] = f"{program.peak_bytes / GIB:.2f}"
        if topology.chip.gpu:
            row["kernels"] = f"{program.kernels:,}"
        rows.append(row)
        print(row, flush=True)  # each takes minutes
    return rows


def measure(on: str, levers: list[str], images: int, rounds: int) -> list[dict]:
    """A row for nothing left out and for each of the levers."""
    if on != "cpu":
        return compiled(levers, on, images)
    processes.keep_memory()
    return timed([each for each in levers if each != "packed state"], rounds, images)


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", default="cpu", help="cpu, or chips as the doctor's --topology")
    parser.add_argument("--without", help="one of the levers; default: each of them")
    parser.add_argument("--images", type=int, default=16, help="on each chip (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    levers = [args.without] if args.without else list(LEVERS)
    if unknown := set(levers) - set(LEVERS):
        parser.error(f"--without={unknown.pop()}: it is one of {', '.join(LEVERS)}")
    if args.images < 1 or args.rounds < 1:
        parser.error("--images and --rounds must be at least 1")
    jax.config.update("jax_platforms", "cpu")
    try:
        rows = measure(args.on, levers, args.images, args.rounds)
    except UserError as error:
        parser.error(str(error))
    print(tabulate(rows, "keys", "github", disable_numparse=True))


if __name__ == "__main__":
    main()
