"""Speed, memory and start-up beside what people would use instead.

    python -m benchmarks --mode=train|infer|data|startup|memory [--against=NAME,...]
        [--batch=16,...] [--size=299] [--dtype=float32] [--threads=N] [--rounds=5] [--seconds=10]
        [--config=configs/v3.py] [--config.FIELD=VALUE ...] [--output=FILE.json]
    python -m benchmarks --mode=gpu

train is the whole training step and infer uint8 to logits, both on a batch of noise that lies on
the device; data is JPEG files to batches of uint8, with one thread. Each side has a process of its
own, on the same cores; the processes take turns in rounds of about --seconds, and a ratio is the
median of the ratios of rounds that belong together. Warm-up and compilation are not in it: compiled
programs go to a temporary folder (or --cache=DIR), so a start is a cold one, and its time to the
first step has a column of its own. --augmentation=inception adds a row: ours with it. The limits of
the device, and the model of what the network needs, are in benchmarks/limits.py.

startup and memory start each side's training in fresh processes, with nothing compiled and again.

Opponents: torchvision, timm, timm-compile (torch.compile), keras (infer) and flax-naive, the
obvious Flax code; in data tf.data, torchvision's DataLoader and pillow. They are in the
repository's benchmarks/. gpu is all that is to be measured on a GPU: benchmarks/gpu.py.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import gpu, speed, starts
from benchmarks.photographs import HEIGHT, WIDTH, write_photographs
from benchmarks.work import OURS, Work, check
from inception import command_line
from inception.config import flatten, load
from inception.doctor.speed import cores
from inception.errors import UserError

BATCHES = {"data": "32"}  # where it is not 16
AUGMENTATIONS = {"data": "inception_fast"}  # resizes bilinearly, as the opponents do; else "none"


def works_of(
    args: argparse.Namespace, overrides: Sequence[str], mode: str, batch: str
) -> list[Work]:
    """The sides that the command line asks for, ours first."""
    opponents = list(filter(None, args.against.split(",")))
    for side in opponents:
        check(mode, side)
    own = [f"batch_size={batch}", f"image_size={args.size}", f"dtype={args.dtype}"]
    plain = f"augmentation={AUGMENTATIONS.get(mode, 'none')}"
    fields = flatten(load(args.config, [plain, *overrides, *own]))
    ours = Work(OURS, mode, args.threads, fields, args.num_classes)
    works = [ours, *(dataclasses.replace(ours, side=side) for side in opponents)]
    if args.augmentation:
        fields = flatten(load(args.config, [f"augmentation={args.augmentation}", *overrides, *own]))
        name = f"{OURS}, augmentation {args.augmentation}"
        works.append(dataclasses.replace(ours, side=name, fields=fields))
    return works


def compare_networks(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Measures every batch, prints its table and returns all that was found."""
    found = []
    for batch in args.batch.split(","):
        works = works_of(args, overrides, args.mode, batch)
        limits = speed.limits(works[0], cache)
        print(f"{args.mode}, batch {batch}, {args.size}x{args.size}, {args.dtype}")
        print(speed.limits_line(limits) + "\n", flush=True)
        results = speed.measure(works, args.rounds, args.seconds, cache)
        print(speed.table(results, limits) + "\n", flush=True)
        found.append({"limits": limits, "results": [dataclasses.asdict(each) for each in results]})
    return found


def compare_inputs(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Measures the input on JPEG files that it writes, prints the table and returns the numbers."""
    with tempfile.TemporaryDirectory(prefix="inception-photographs-") as folder:
        paths = write_photographs(Path(folder))
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        print(f"{len(paths)} JPEG files of {WIDTH}x{HEIGHT}, {kilobytes:.0f} kB on average\n")
        overrides = [*overrides, f"data_dir={folder}"]
        works = works_of(args, overrides, args.mode, args.batch)
        results = speed.measure(works, args.rounds, args.seconds, cache)
    print(speed.input_table(results))
    return [dataclasses.asdict(each) for each in results]


def compare_starts(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Starts every side cold and again, prints the mode's table and returns the numbers."""
    works = works_of(args, overrides, "train", args.batch)
    found = starts.measure(works, args.rounds, cache)
    table = {"startup": starts.startup_table, "memory": starts.memory_table}[args.mode]
    print(table(found))
    return [dataclasses.asdict(each) for each in found]


def compare_on_gpu(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Runs gpu.py, in bfloat16 against timm's compiled network."""
    args.against, args.dtype = gpu.OPPONENT, "bfloat16"

    def sides(mode: str, batch: int) -> list[Work]:
        return works_of(args, overrides, mode, str(batch))

    return gpu.run(sides, args.rounds, args.seconds, cache, "gpu")


MODES = {
    "train": compare_networks,
    "infer": compare_networks,
    "data": compare_inputs,
    "startup": compare_starts,
    "memory": compare_starts,
    "gpu": compare_on_gpu,
}


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = command_line.parser("python -m benchmarks", __doc__, config=True)
    parser.add_argument("--mode", required=True, choices=MODES)
    parser.add_argument("--against", default="", metavar="NAME,...", help="opponents")
    parser.add_argument("--batch", help="images of a step; several: 1,16 (16; in data 32)")
    parser.add_argument("--size", type=int, default=299, help="of images, pixels (%(default)s)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--config", default="configs/v3.py", help="a file (%(default)s)")
    parser.add_argument("--num_classes", type=int, default=1000, help="logits (%(default)s)")
    parser.add_argument("--augmentation", help="adds a row: ours with it")
    parser.add_argument("--threads", type=int, help="of each side (all cores; in data 1)")
    parser.add_argument("--rounds", type=int, help="(5; of starts 1)")
    parser.add_argument("--seconds", type=float, default=10, help="of a round (%(default)s)")
    parser.add_argument("--cache", help="keeps compiled programs in this folder")
    parser.add_argument("--output", metavar="FILE.json", help="writes all numbers")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the mode that the command line asks for."""
    args, overrides = command_line.parse(parser(), argv)
    args.batch = args.batch or BATCHES.get(args.mode, "16")
    args.threads = args.threads or (1 if args.mode == "data" else cores())
    args.rounds = args.rounds or (1 if args.mode in ("startup", "memory") else 5)
    for name in ("threads", "rounds", "seconds"):
        if getattr(args, name) <= 0:
            raise UserError(f"--{name}={getattr(args, name)}; it must be greater than 0")
    with tempfile.TemporaryDirectory(prefix="inception-benchmark-") as scratch:
        found = MODES[args.mode](args, overrides, Path(args.cache or scratch))
    if args.output:
        packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
        about = {"arguments": vars(args), "overrides": overrides, "packages": packages}
        Path(args.output).write_text(json.dumps({**about, "measured": found}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(command_line.run(main, "A smaller --batch needs less"))
