"""Measures speed, memory and start-up time next to other libraries.

    python -m benchmarks --mode=train|infer|data|startup|memory [--against=NAME,...]
        [--batch=16,...] [--size=299] [--dtype=float32] [--threads=N] [--rounds=5] [--seconds=10]
        [--config=configs/v3.py] [--config.FIELD=VALUE ...] [--output=FILE.json]
    python -m benchmarks --mode=gpu [--output=gpu.jsonl] [--minutes=8]

train measures the whole training step and infer uint8 to logits, both on a batch of noise on the
device; data measures JPEG files to uint8 batches, with one thread. Each contender has a process of
its own, on the same cores; rounds of about --seconds are interleaved, and a ratio is the median
over pairs of rounds. Warm-up and compilation are excluded; the column "first step" has a cold
start, with compilation into a temporary folder (or --cache=DIR). --augmentation=inception adds a
row: ours with it. benchmarks/limits.py explains the device's limits. --isa=native,avx2 measures a
CPU twice, the second time with all libraries kept to AVX2.

startup and memory start each contender's training in fresh processes, cold and with a full cache.

Opponents: torchvision, timm, timm-compile (torch.compile), keras (infer only) and flax-naive, the
obvious Flax code; for data tf.data, torchvision's DataLoader and pillow. gpu makes all measurements
for a GPU within --minutes, and continues where it was stopped: benchmarks/gpu.py.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import gpu, gpu_parts, speed, starts
from benchmarks.cases import OURS, Case, check
from benchmarks.interleave import INSTRUCTIONS, instructions, processor
from benchmarks.photographs import HEIGHT, WIDTH, write_photographs
from inception import command_line
from inception.config import flatten, load
from inception.data.paths import local_path
from inception.doctor.speed import cores
from inception.errors import UserError
from inception.workdir.files import write_json

BATCHES = {"data": "32"}  # default batch sizes; else 16
AUGMENTATIONS = {"data": "inception_fast"}  # bilinear, as the opponents'; else "none"


def make_cases(
    args: argparse.Namespace, overrides: Sequence[str], mode: str, batch: str
) -> list[Case]:
    """The cases that the command line asks for, ours first."""
    opponents = list(filter(None, args.against.split(",")))
    for name in opponents:
        check(mode, name)
    own = [f"batch_size={batch}", f"image_size={args.size}", f"dtype={args.dtype}"]
    plain = f"augmentation={AUGMENTATIONS.get(mode, 'none')}"
    fields = flatten(load(args.config, [plain, *overrides, *own]))
    ours = Case(OURS, mode, args.threads, fields, args.num_classes)
    cases = [ours, *(dataclasses.replace(ours, contender=name) for name in opponents)]
    if args.augmentation:
        fields = flatten(load(args.config, [f"augmentation={args.augmentation}", *overrides, *own]))
        name = f"{OURS}, augmentation {args.augmentation}"
        cases.append(dataclasses.replace(ours, contender=name, fields=fields))
    return cases


def compare_networks(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Measures every batch size, prints a table for each and returns the numbers."""
    found = []
    for isa in args.isa.split(","):
        for batch in args.batch.split(","):
            cases = make_cases(args, overrides, args.mode, batch)
            with instructions(isa):
                limits = speed.limits(cases[0], cache / isa)
                print(f"{args.mode}, batch {batch}, {args.size}x{args.size}, {args.dtype}, {isa}")
                print(speed.limits_line(limits) + "\n", flush=True)
                results = speed.measure(cases, args.rounds, args.seconds, cache / isa)
            print(speed.table(results, limits) + "\n", flush=True)
            found.append(
                {"isa": isa, "limits": limits, "results": list(map(dataclasses.asdict, results))}
            )
    return found


def compare_inputs(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Measures input pipelines on temporary JPEG files, prints a table and returns the numbers."""
    with tempfile.TemporaryDirectory(prefix="inception-photographs-") as folder:
        paths = write_photographs(Path(folder))
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        print(f"{len(paths)} JPEG files of {WIDTH}x{HEIGHT}, {kilobytes:.0f} kB on average\n")
        overrides = [*overrides, f"data_dir={folder}"]
        cases = make_cases(args, overrides, args.mode, args.batch)
        results = speed.measure(cases, args.rounds, args.seconds, cache)
    print(speed.input_table(results))
    return [dataclasses.asdict(each) for each in results]


def compare_starts(args: argparse.Namespace, overrides: Sequence[str], cache: Path) -> list[dict]:
    """Starts every contender cold and again, prints a table and returns the numbers."""
    cases = make_cases(args, overrides, "train", args.batch)
    found = starts.measure(cases, args.rounds, cache)
    print(starts.table(args.mode, found))
    return [dataclasses.asdict(each) for each in found]


def compare_on_gpu(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Runs gpu.py, in bfloat16."""
    check("train", gpu_parts.OPPONENT)
    args.dtype, args.against = "bfloat16", ""
    output = Path(args.output or "gpu.jsonl")
    setting = gpu_parts.Setting(
        fields=make_cases(args, overrides, "train", "256")[0].fields,
        num_classes=args.num_classes,
        threads=args.threads,
        rounds=args.rounds,
        seconds=args.seconds,
        cache=args.cache or f"{output}.cache",
    )
    gpu.run(setting, output, args.minutes)


MODES = {
    "train": compare_networks,
    "infer": compare_networks,
    "data": compare_inputs,
    "startup": compare_starts,
    "memory": compare_starts,
}


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = command_line.parser("python -m benchmarks", __doc__, config=True)
    parser.add_argument("--mode", required=True, choices=[*MODES, "gpu"])
    parser.add_argument("--against", default="", metavar="NAME,...", help="opponents")
    parser.add_argument("--batch", help="images of a step, e.g. 1,16 (default 16; data 32)")
    parser.add_argument(
        "--size", type=int, default=299, help="of the images, in pixels (%(default)s)"
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--config", default="configs/v3.py", help="config file (%(default)s)")
    parser.add_argument(
        "--num_classes", type=int, default=1000, help="number of logits (%(default)s)"
    )
    parser.add_argument("--augmentation", help="adds a row: ours with it")
    parser.add_argument(
        "--isa", default="native", help="of a CPU in train and infer: native,avx2 (%(default)s)"
    )
    parser.add_argument("--threads", type=int, help="of each contender (default all cores; data 1)")
    parser.add_argument("--rounds", type=int, help="default 5; startup and memory 1")
    parser.add_argument("--seconds", type=float, help="of a round (10; gpu 2)")
    parser.add_argument("--minutes", type=float, default=8, help="of --mode=gpu (%(default)s)")
    parser.add_argument("--cache", type=local_path, help="folder that keeps compiled programs")
    parser.add_argument(
        "--output", metavar="FILE.json", type=local_path, help="file for all numbers"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the mode that the command line asks for."""
    args, overrides = command_line.parse(parser(), argv)
    args.batch = args.batch or BATCHES.get(args.mode, "16")
    args.threads = args.threads or (1 if args.mode == "data" else cores())
    args.seconds = args.seconds if args.seconds is not None else 2 if args.mode == "gpu" else 10
    args.rounds = args.rounds or (1 if args.mode in ("startup", "memory") else 5)
    for name in ("threads", "rounds", "seconds", "minutes"):
        if getattr(args, name) <= 0:
            raise UserError(f"--{name}={getattr(args, name)} must be greater than 0")
    if unknown := set(args.isa.split(",")) - set(INSTRUCTIONS):
        raise UserError(f"--isa={unknown.pop()}: use some of {','.join(INSTRUCTIONS)}")
    if args.mode == "gpu":
        compare_on_gpu(args, overrides)
        return
    with tempfile.TemporaryDirectory(prefix="inception-benchmark-") as scratch:
        found = MODES[args.mode](args, overrides, Path(args.cache or scratch))
    if args.output:
        packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
        paths = {"cache", "output"}
        arguments = {name: value for name, value in vars(args).items() if name not in paths}
        about = {
            "command": command_line.command_of(parser(), argv),
            "processor": processor(),
            "arguments": arguments,
            "overrides": overrides,
            "packages": packages,
        }
        write_json(args.output, {**about, "measured": found})


if __name__ == "__main__":
    sys.exit(command_line.run(main, "A smaller --batch needs less"))
