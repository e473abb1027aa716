"""What each optimization of the training step is worth: the step without it, beside the whole.

    python -m benchmarks.levers --on=cpu [--rounds=5]
    python -m benchmarks.levers --on=h100 --images=256
    python -m benchmarks.levers --on=v5e:2x2 --images=128 [--without="packed state"]

On a CPU the steps are timed in turns, float32. For a GPU or TPU, which need not be there, they are
compiled, bfloat16: memory traffic as inception/plan/traffic.py counts it, and a GPU's kernels.
"""

import argparse
import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import jax
from tabulate import tabulate

from benchmarks.ours import synthetic_batch
from benchmarks.work import OURS, Work
from inception import config, runtime
from inception.config import flatten
from inception.distributed import sharding
from inception.errors import UserError
from inception.ops.platforms import reference
from inception.plan import absent
from inception.training import state
from inception.training.step import TrainStep

CLASSES, STEPS_PER_EPOCH = 1000, 1000.0
GIB = 2**30


class Without(NamedTuple):
    """How a step differs from the whole one."""

    operations: tuple[str, ...] = ()  # computed by their references
    fuse: bool = True  # of the network
    packed: bool | None = None  # the state; None: on a GPU


OPTIMIZATIONS = {
    "fused network": Without(fuse=False),
    "batch norm's gradient": Without(("normalize",)),
    "the maximum's gradient": Without(("max_pool",)),
    "oneDNN's convolutions": Without(("conv",)),
    "recomputation": Without(("barrier",)),
    "packed state": Without(packed=False),
}


def timed(names: list[str], rounds: int, images: int) -> list[dict]:
    """Seconds of a step on this machine, in turns."""
    fields = config.load("configs/v3.py", ["augmentation=none", f"batch_size={images}"])
    batch_of = Work(OURS, "train", 0, flatten(fields), CLASSES)
    mesh = sharding.make_mesh()
    batch = next(sharding.to_devices(mesh, [synthetic_batch(batch_of)]))
    steps = {}
    for name in ["", *names]:
        without = OPTIMIZATIONS.get(name, Without())
        with reference(*without.operations):
            recipe = state.build(fields, CLASSES, STEPS_PER_EPOCH)
            model = recipe.model.clone(fuse=without.fuse)
            recipe = dataclasses.replace(recipe, model=model)
            jitted = TrainStep(recipe, mesh).jitted
            steps[name] = jitted.lower(recipe.abstract_state(mesh), batch).compile()
    current = recipe.create_state(mesh)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            current, _ = jax.block_until_ready(step(current, batch))
            seconds[name].append(time.perf_counter() - start)
    ratios = {
        name: [one / whole for one, whole in zip(each, seconds[""], strict=True)][1:]
        for name, each in seconds.items()
    }
    return [
        {
            "without": name or "nothing",
            "seconds": f"{statistics.median(seconds[name][1:]):.2f}",
            "of the whole step's": f"{statistics.median(each):.2f} ({min(each):.2f} to "
            f"{max(each):.2f})",
        }
        for name, each in ratios.items()
    ]


def compiled(names: list[str], target: str, images: int) -> list[dict]:
    """What the programs for absent chips say."""
    topology = absent.parse_topology(target)
    fields = config.load(
        "configs/v3.py", ["dtype=bfloat16", f"batch_size={images * topology.size}"]
    )
    rows = []
    for name in ["", *names]:
        without = OPTIMIZATIONS.get(name, Without())
        with reference(*without.operations):
            program = absent.compile_for(
                topology, fields, images, CLASSES, fuse=without.fuse, packed=without.packed
            )
        moved = sum(program.moved.values()) / program.images / 1e6
        row: dict[str, Any] = {"without": name or "nothing", "MB an image": f"{moved:.0f}"}
        row["GiB"] = f"{program.peak_bytes / GIB:.2f}"
        if topology.chip.gpu:
            row["kernels"] = f"{program.kernels:,}"
        rows.append(row)
        print(row, flush=True)  # each takes minutes
    return rows


def measure(on: str, names: list[str], images: int, rounds: int) -> list[dict]:
    """A row for nothing left out and for each of the optimizations."""
    if on != "cpu":
        return compiled(names, on, images)
    runtime.configure()
    runtime.tune_host_runtime()
    return timed([each for each in names if each != "packed state"], rounds, images)


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", default="cpu", help="cpu, or a --topology of inception.plan")
    parser.add_argument("--without", help="one of the optimizations; default: each of them")
    parser.add_argument("--images", type=int, default=16, help="on each chip (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    names = [args.without] if args.without else list(OPTIMIZATIONS)
    if unknown := set(names) - set(OPTIMIZATIONS):
        parser.error(f"--without={unknown.pop()}: it is one of {', '.join(OPTIMIZATIONS)}")
    if args.images < 1 or args.rounds < 1:
        parser.error("--images and --rounds must be at least 1")
    jax.config.update("jax_platforms", "cpu")
    try:
        rows = measure(args.on, names, args.images, args.rounds)
    except UserError as error:
        parser.error(str(error))
    print(tabulate(rows, "keys", "github", disable_numparse=True))


if __name__ == "__main__":
    main()
