"""Training on JPEG files beside its step alone: what a run loses to its input.

    python -m benchmarks.loop [--images=16] [--steps=10] [--rounds=3]

On a CPU the step has one core and decoding has the others, as where the step has a device: without
that they would share what there is. A turn should have more steps than the six batches or so that
lie ready when it begins. Linux only.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks.ours import IMAGENET
from benchmarks.photographs import write_photographs
from inception import defaults, runtime
from inception.data.datasets import train_batches
from inception.data.folder import FolderSource
from inception.distributed import sharding
from inception.errors import UserError
from inception.training.state import build
from inception.training.step import TrainStep


def seconds_by_turns(
    config: ConfigDict, root: Path, steps: int, rounds: int, on_cpu: bool
) -> list[tuple[float, float]]:
    """Of each round the seconds of a step on a batch that lies ready, and of one of the loop."""
    of_step = of_input = sorted(os.sched_getaffinity(0))
    if on_cpu:
        of_step, of_input = of_step[:1], of_input[1:]
    os.sched_setaffinity(0, of_step)  # threads have the cores of the thread that starts them
    mesh = sharding.make_mesh()
    recipe = build(config, 1000, IMAGENET / config.batch_size)
    step = TrainStep(recipe, mesh)
    state: Any = step.pack(recipe.create_state(mesh))
    os.sched_setaffinity(0, of_input)
    batches = train_batches(config, FolderSource(root, "train"), mesh, 0)
    ready = next(batches)
    os.sched_setaffinity(0, of_step)

    def seconds(batch: Callable[[], dict]) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, batch())
        jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / steps

    seconds(lambda: ready)  # compiles
    return [(seconds(lambda: ready), seconds(lambda: next(batches))) for _ in range(rounds)]


def report(times: Sequence[tuple[float, float]], images: int) -> str:
    """Both speeds, and how much longer a step of the loop takes."""
    alone, loop = (statistics.median(each) for each in zip(*times, strict=True))
    longer = sorted(100 * (loop / alone - 1) for alone, loop in times)
    return (
        f"step alone {images / alone:.1f} images/s, the loop on JPEG files {images / loop:.1f}: "
        f"{statistics.median(longer):+.1f} % time ({longer[0]:+.1f} to {longer[-1]:+.1f} %)"
    )


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--images", type=int, default=16, help="of a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="of a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of turns (%(default)s)")
    args = parser.parse_args()
    if min(args.images, args.steps, args.rounds) < 1:
        parser.error("--images, --steps and --rounds must be at least 1")
    if args.on == "cpu" and len(os.sched_getaffinity(0)) < 2:
        parser.error("--on=cpu needs two cores, one for the step and one for decoding")
    if args.on == "cpu":
        jax.config.update("jax_platforms", "cpu")
    runtime.configure()
    runtime.tune_host_runtime()
    config = defaults.get_config()
    config.batch_size = args.images
    config.dtype = "float32" if args.on == "cpu" else "bfloat16"
    with tempfile.TemporaryDirectory() as root:
        try:
            write_photographs(Path(root))
        except UserError as error:
            parser.error(str(error))
        how = {"steps": args.steps, "rounds": args.rounds, "on_cpu": args.on == "cpu"}
        print(report(seconds_by_turns(config, Path(root), **how), args.images))


if __name__ == "__main__":
    main()
