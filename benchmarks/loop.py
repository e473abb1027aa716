"""Training on JPEG files next to its step alone: what a run loses to its input.

    python -m benchmarks.loop [--images=16] [--steps=10] [--rounds=3]

On a CPU the step has one core and decoding the others, so that they do not compete. A round should
have more steps than the input has batches ready, about six. Linux only.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks.ours import IMAGENET
from benchmarks.photographs import write_photographs
from inception import command_line, defaults, runtime
from inception.data.datasets import train_batches
from inception.data.folder import FolderSource
from inception.distributed import sharding
from inception.errors import UserError
from inception.training.state import build
from inception.training.step import TrainStep


def measure(
    config: ConfigDict, root: Path, steps: int, rounds: int, step_cores: set[int]
) -> list[tuple[float, float]]:
    """Seconds of a step on a batch that is ready, and of one of the loop, for each round."""
    input_cores = os.sched_getaffinity(0)
    input_cores = (input_cores - step_cores) or input_cores
    os.sched_setaffinity(0, step_cores)  # inherited by the threads that are started here
    mesh = sharding.make_mesh()
    recipe = build(config, 1000, IMAGENET / config.batch_size)
    step = TrainStep(recipe, mesh)
    state: Any = step.pack(recipe.create_state(mesh))
    os.sched_setaffinity(0, input_cores)
    batches = train_batches(config, FolderSource(root, "train"), mesh, 0)
    ready = next(batches)
    os.sched_setaffinity(0, step_cores)

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
    """Both speeds, and the additional time of the loop."""
    alone, loop = (statistics.median(each) for each in zip(*times, strict=True))
    more = sorted(100 * (loop / alone - 1) for alone, loop in times)
    return (
        f"step alone {images / alone:.1f} images/s, the loop on JPEG files {images / loop:.1f}: "
        f"{statistics.median(more):+.1f} % time ({more[0]:+.1f} to {more[-1]:+.1f} %)"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the command line asks for."""
    parser = command_line.parser("python -m benchmarks.loop", __doc__)
    parser.add_argument("--on", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--images", type=int, default=16, help="of a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    args, _ = command_line.parse(parser, argv)
    if min(args.images, args.steps, args.rounds) < 1:
        raise UserError("--images, --steps and --rounds must be at least 1")
    step_cores = os.sched_getaffinity(0)
    if args.on == "cpu":
        if len(step_cores) < 2:
            raise UserError("--on=cpu needs two cores, one for the step and one for decoding")
        step_cores = {min(step_cores)}
        jax.config.update("jax_platforms", "cpu")
    runtime.configure()
    runtime.tune_host_runtime()
    config = defaults.get_config()
    config.batch_size = args.images
    config.dtype = "float32" if args.on == "cpu" else "bfloat16"
    with tempfile.TemporaryDirectory() as root:
        write_photographs(Path(root))
        times = measure(config, Path(root), args.steps, args.rounds, step_cores)
        print(report(times, args.images))


if __name__ == "__main__":
    sys.exit(command_line.run(main, "A smaller --images needs less"))
