"""What each optimization of the training step is worth: the step without it, next to the whole.

    python -m benchmarks.optimizations --on=cpu [--rounds=5]
    python -m benchmarks.optimizations --on=h100 --images=256
    python -m benchmarks.optimizations --on=v5e:2x2 --images=128 [--without="packed state"]

On a CPU the float32 steps are timed in interleaved rounds. For a GPU or TPU, which need not be
there, the bfloat16 steps are compiled: memory traffic (inception/plan/traffic.py) and a GPU's
kernels.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
from tabulate import tabulate

from benchmarks.cases import OURS, Case
from benchmarks.ours import synthetic_batch
from inception import command_line, runtime
from inception.config import flatten, load
from inception.distributed import sharding
from inception.errors import UserError
from inception.ops.platforms import reference
from inception.plan import aot
from inception.plan.topology import parse_topology
from inception.training.state import build
from inception.training.step import TrainStep

CLASSES, STEPS_PER_EPOCH = 1000, 1000.0
GIB = 2**30


class Without(NamedTuple):
    """How a step differs from the whole one.

    Attributes:
      operations: Operations that are computed by their references, see `platforms.reference`.
      fuse: See `Inception`.
      packed: See `TrainStep`.
    """

    operations: tuple[str, ...] = ()
    fuse: bool = True
    packed: bool | None = None


WHOLE = "nothing"
OPTIMIZATIONS = {
    "fused network": Without(fuse=False),
    "batch norm's gradient": Without(("normalize",)),
    "the maximum's gradient": Without(("max_pool",)),
    "oneDNN's convolutions": Without(("conv",)),
    "recomputation": Without(("barrier",)),
    "packed state": Without(packed=False),
}


def seconds(names: Sequence[str], config: ConfigDict, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of the whole step and of the steps without an optimization, by name."""
    mesh = sharding.make_mesh()
    case = Case(OURS, "train", 0, flatten(config), CLASSES)
    batch = next(sharding.to_devices(mesh, [synthetic_batch(case)]))
    steps, states = {}, {}
    for name in names:
        without = OPTIMIZATIONS.get(name, Without())
        with reference(*without.operations):
            recipe = build(config, CLASSES, STEPS_PER_EPOCH)
            recipe = dataclasses.replace(recipe, model=recipe.model.clone(fuse=without.fuse))
            step = TrainStep(recipe, mesh, packed=without.packed)
            state = step.pack(recipe.create_state(mesh))
            steps[name] = step.jitted.lower(state, batch).compile()
        states[name] = state
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds + 1):  # the first warms up
        for name, step in steps.items():
            start = time.perf_counter()
            states[name], _ = jax.block_until_ready(step(states[name], batch))
            found[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in found.items()}


def timed(names: Sequence[str], config: ConfigDict, rounds: int) -> list[dict[str, str]]:
    """A row for the whole step and for each step without an optimization, timed on this machine."""
    found, rows = seconds(names, config, rounds), []
    for name, own in found.items():
        ratios = [one / whole for one, whole in zip(own, found[WHOLE], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        row = {"without": name, "seconds": f"{statistics.median(own):.2f}"}
        rows.append(row | {"of the whole step's": spread})
    return rows


def compiled(names: Sequence[str], target: str, images: int) -> list[dict[str, str]]:
    """A row for each of these steps, compiled for a topology."""
    topology = parse_topology(target)
    config = load("configs/v3.py", ["dtype=bfloat16", f"batch_size={images * topology.size}"])
    rows = []
    for name in names:
        without = OPTIMIZATIONS.get(name, Without())
        with reference(*without.operations):
            program = aot.compile_for(
                topology, config, images, CLASSES, fuse=without.fuse, packed=without.packed
            )
        megabytes = program.hbm_bytes.total() / program.images / 1e6
        row = {"without": name, "MB an image": f"{megabytes:.0f}"}
        row["GiB"] = f"{program.peak_bytes / GIB:.2f}"
        if topology.chip.gpu:
            row["kernels"] = f"{program.kernels:,}"
        rows.append(row)
        print(row, flush=True)  # each takes minutes
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the command line asks for."""
    parser = command_line.parser("python -m benchmarks.optimizations", __doc__)
    parser.add_argument("--on", default="cpu", help="cpu, or a --topology of inception.plan")
    parser.add_argument("--without", help="one of the optimizations (default: each of them)")
    parser.add_argument("--images", type=int, default=16, help="on each chip (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    args, _ = command_line.parse(parser, argv)
    names = [args.without] if args.without else list(OPTIMIZATIONS)
    if unknown := set(names) - set(OPTIMIZATIONS):
        raise UserError(f"--without={unknown.pop()}: use one of {', '.join(OPTIMIZATIONS)}")
    if args.images < 1 or args.rounds < 1:
        raise UserError("--images and --rounds must be at least 1")
    jax.config.update("jax_platforms", "cpu")
    if args.on == "cpu":
        runtime.tune_host_runtime()
        config = load("configs/v3.py", ["augmentation=none", f"batch_size={args.images}"])
        names = [name for name in names if name != "packed state"]  # a GPU's
        rows = timed([WHOLE, *names], config, args.rounds)
    else:
        rows = compiled([WHOLE, *names], args.on, args.images)
    print(tabulate(rows, "keys", "github", disable_numparse=True))


if __name__ == "__main__":
    sys.exit(command_line.run(main, "A smaller --images needs less"))
