"""Compares FID with other tools: images/s of a folder of PNG files, memory, and the distance.

    python -m benchmarks.fid [--against=pytorch-fid,torch-fidelity] [--images=128] [--rounds=3]
        [--output=FILE.json]

Each side has a process of its own with the same random weights, and the processes take turns. The
first turn, in which programs are compiled, is not counted. "network" is our network alone, on
inputs that are already on the device: the difference from "ours" is the overhead of files, resize
and moments. CPU time is printed next to elapsed time, because only CPU time means much on a shared
machine.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmarks.interleave import processor
from benchmarks.speed import Spread
from inception import command_line
from inception.data.paths import local_path
from inception.workdir.files import write_json

OURS = ("ours", "network")
TOOLS = ("pytorch-fid", "torch-fidelity")
_SERVE = """
import sys
from benchmarks.fid import serve
serve(*sys.argv[1:4], int(sys.argv[4]))
"""


def write_images(folder: Path, count: int, size: int = 256) -> None:
    """Writes PNG files with about the spectrum of photographs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = np.zeros((size, size, 3))
        for octave in range(1, 8):
            grid = rng.normal(size=(2**octave, 2**octave, 3))
            step = size // 2**octave
            pixels += grid.repeat(step, axis=0).repeat(step, axis=1) / 2 ** (0.4 * octave)
        image = np.clip(127 + 60 * pixels, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{number:05}.png")


def write_weights(file: str) -> None:
    """Writes FID's network as torchvision initializes it, in pytorch-fid's format."""
    import torch
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.inception_v3(
        weights=None, init_weights=False, num_classes=1008, aux_logits=False
    )
    torch.save(network.state_dict(), file)


def open_side(side: str, weights: str, folder: str, batch_size: int) -> Callable[[], object]:
    """Returns what a side does in a turn: features of all images, and their moments."""
    if side in OURS:
        return _open_ours(side, weights, folder, batch_size)
    from inception.fid import oracles

    files = sorted(map(str, Path(folder).iterdir()))
    if side == "pytorch-fid":
        from pytorch_fid import fid_score

        network = oracles.fid_network(weights)
        network.output_blocks = [3]
        return lambda: fid_score.calculate_activation_statistics(
            files, network, batch_size, num_workers=0
        )
    from torch_fidelity import metric_fid, utils
    from torch_fidelity.datasets import ImagesPathDataset
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
    )

    def turn() -> None:
        features = utils.get_featuresdict_from_dataset(
            ImagesPathDataset(files), extractor, batch_size, False, True, False
        )
        metric_fid.fid_features_to_statistics(features["2048"])

    return turn


def _open_ours(side: str, weights: str, folder: str, batch_size: int) -> Callable[[], object]:
    import jax

    from inception import fid
    from inception.fid import pipeline

    pipeline.FEW = 0  # moments on the device, as of a large set
    extract = fid.Extractor(weights, "pytorch")
    if side == "ours":
        return lambda: fid.measure(fid.open_images(folder), extract, batch_size=batch_size)
    count = len(list(Path(folder).iterdir()))
    inputs = jax.random.uniform(jax.random.key(0), (batch_size, 299, 299, 3), minval=-1)

    def turn() -> None:
        for _ in range(-(-count // batch_size)):
            jax.block_until_ready(extract.features_of_inputs(inputs))

    return turn


def serve(side: str, weights: str, folder: str, batch_size: int) -> None:
    """Takes a turn for each line of input; prints its elapsed and CPU seconds and the memory."""
    turn = open_side(side, weights, folder, batch_size)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        turn()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - start, time.process_time() - cpu
        print(json.dumps([*seconds, peak]), flush=True)


def measure(
    sides: Sequence[str], folder: str, images: int, batch_size: int, rounds: int
) -> dict[str, list[list[float]]]:
    """Returns elapsed seconds, CPU seconds and peak memory in MB, by side and round."""
    with tempfile.TemporaryDirectory() as scratch:
        weights = str(Path(scratch) / "fid.pth")
        write = f"from benchmarks.fid import write_weights; write_weights({weights!r})"
        subprocess.run([sys.executable, "-c", write], check=True)
        rest = [weights, folder, str(batch_size)]
        started = {
            side: subprocess.Popen(
                [sys.executable, "-c", _SERVE, side, *rest],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for side in sides
        }
        found: dict[str, list[list[float]]] = {side: [] for side in sides}
        for _ in range(rounds + 1):
            for side, process in started.items():
                assert process.stdin
                assert process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                found[side].append(json.loads(process.stdout.readline()))
        for process in started.values():
            process.communicate()
    return {side: turns[1:] for side, turns in found.items()}


def report(found: Mapping[str, Sequence[Sequence[float]]], images: int) -> list[dict[str, str]]:
    """A row for each side: medians, and its ratios to ours in the same round."""
    rows = []
    for side, turns in found.items():
        clock, cpu, peak = (statistics.median(each) for each in zip(*turns, strict=True))
        pairs = zip(found["ours"], turns, strict=True)
        ratios = Spread.of([theirs[1] / ours[1] for ours, theirs in pairs])
        rows.append(
            {
                "side": side,
                "images/s": f"{images / clock:.1f}",
                "images per CPU second": f"{images / cpu:.1f}",
                "CPU time / ours": ratios.text(2),
                "peak memory": f"{peak:,.0f} MB",
            }
        )
    return rows


def time_distances(d: int = 2048, count: int = 5000) -> list[dict[str, str]]:
    """Rows with the time of our distance and of SciPy's root of the product, at full rank."""
    from scipy import linalg

    from inception import fid

    rng = np.random.default_rng(0)
    spectrum = np.arange(1, d + 1) ** -0.55
    sides = [fid.statistics_of(rng.normal(size=(count, d)) * spectrum) for _ in range(2)]
    rows = []
    for name, compute in (
        ("inception.fid", lambda: fid.distance(*sides)),
        ("SciPy's sqrtm alone", lambda: linalg.sqrtm(sides[0].covariance @ sides[1].covariance)),
    ):
        start, cpu = time.perf_counter(), time.process_time()
        compute()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        rows.append({f"distance of {d}": name, "s": f"{seconds:.1f}", "CPU s": f"{cpu:.1f}"})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = command_line.parser("python -m benchmarks.fid", __doc__)
    parser.add_argument("--against", default=",".join(TOOLS), help="(%(default)s)")
    parser.add_argument("--images", type=int, default=128, help="in the folder (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of turns (%(default)s)")
    parser.add_argument("--output", metavar="FILE.json", type=local_path, help="also writes it")
    args, _ = command_line.parse(parser, argv)
    if min(args.images - 1, args.batch_size, args.rounds) < 1:
        parser.error("--images must be at least 2, --batch_size and --rounds at least 1")
    against = [name for name in args.against.split(",") if name]
    if unknown := set(against) - set(TOOLS):
        parser.error(f"--against={min(unknown)} is unknown; it is some of {','.join(TOOLS)}")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images)
        sides = [*OURS, *against]
        found = measure(sides, folder, args.images, args.batch_size, args.rounds)
    tables = [report(found, args.images), time_distances()]
    for rows in tables:
        print(tabulate(rows, "keys", "simple", disable_numparse=True) + "\n")
    if args.output:
        about = {"command": command_line.command_of(parser, argv), "processor": processor()}
        write_json(args.output, {**about, "images": args.images, "tables": tables})


if __name__ == "__main__":
    sys.exit(command_line.run(main))
