"""Speed, memory and start-up beside what people would use instead.

    python -m inception.benchmark --mode=train|infer [--against=NAME,...] [--batch=16,...]
        [--size=299] [--dtype=float32] [--threads=N] [--rounds=5] [--seconds=10]
        [--config=configs/v3.py] [--config.FIELD=VALUE ...] [--output=FILE.json]

train is the whole training step and infer uint8 to logits, both on a batch of noise that lies on
the device. Opponents: torchvision, timm, timm-compile (torch.compile; the precision is autocast's),
keras (infer only) and flax-naive, the obvious Flax code; they are in the repository's benchmarks/.

Each side has a process of its own, on the same cores; the processes take turns in rounds of about
--seconds, and a ratio is the median of the ratios of rounds that belong together. Compiled programs
go to a temporary folder (or --cache=DIR), so a start is a cold one; warm-up is not measured.
--augmentation=inception adds a row: our step with that augmentation. What the device could do is in
inception/benchmark/limits.py.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from inception import command_line
from inception.benchmark import speed
from inception.benchmark.work import OURS, SIDES, Work, check
from inception.config import flatten, load
from inception.doctor.speed import cores


def works_of(args: argparse.Namespace, overrides: Sequence[str], batch: int) -> list[Work]:
    """The sides that the command line asks for, ours first."""
    sides = [OURS, *filter(None, args.against.split(","))]
    for side in sides[1:]:
        check(args.mode, side)
    own = [f"batch_size={batch}", f"image_size={args.size}", f"dtype={args.dtype}"]
    config = load(args.config, ["augmentation=none", *overrides, *own])
    fields = flatten(config)

    def work(side: str, **changed: str) -> Work:
        return Work(side, args.mode, args.threads, fields | changed, args.num_classes)

    works = [work(side) for side in sides]
    if args.augmentation:
        name = f"{OURS}, augmentation {args.augmentation}"
        works.append(work(name, augmentation=args.augmentation))
    return works


def compare(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Measures every batch, prints its table and returns all that was found."""
    found = []
    for batch in map(int, args.batch.split(",")):
        works = works_of(args, overrides, batch)
        limits = speed.limits(works[0], cache)
        print(f"{args.mode}, batch {batch}, {args.size}x{args.size}, {args.dtype}")
        print(speed.limits_line(limits) + "\n")
        results = speed.measure(works, args.rounds, args.seconds, cache)
        print(speed.table(results, limits) + "\n")
        found.append({"limits": limits, "results": [dataclasses.asdict(each) for each in results]})
    return found


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = command_line.parser("python -m inception.benchmark", __doc__, config=True)
    parser.add_argument("--mode", required=True, choices=SIDES)
    parser.add_argument("--against", default="", metavar="NAME,...", help="opponents")
    parser.add_argument("--batch", default="16", help="images of a step; several: 1,16")
    parser.add_argument("--size", type=int, default=299, help="of images, pixels (%(default)s)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--config", default="configs/v3.py", help="a file (%(default)s)")
    parser.add_argument("--num_classes", type=int, default=1000, help="logits (%(default)s)")
    parser.add_argument("--augmentation", default="", help="adds ours with it; default: none")
    parser.add_argument("--threads", type=int, default=cores(), help="of each side (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of a round (%(default)s)")
    parser.add_argument("--cache", help="keeps compiled programs in this folder")
    parser.add_argument("--output", metavar="FILE.json", help="writes all numbers")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the mode that the command line asks for."""
    args, overrides = command_line.parse(parser(), argv)
    with tempfile.TemporaryDirectory(prefix="inception-benchmark-") as scratch:
        found = compare(args, overrides, Path(args.cache or scratch))
    if args.output:
        Path(args.output).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(command_line.run(main))
