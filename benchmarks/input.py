"""Input images/s of one core: ours beside tf.data, torchvision and Pillow, on the same files.

    python -m benchmarks.input [--image_size=299] [--seconds=15] [--threads=1,2]

Every pipeline reads the same JPEG files (photographs that ship with scikit-learn and scikit-image,
cut to 500x375, quality 90), decodes a random box of 5 to 100 % of the area, resizes it bilinearly
and stacks uint8 batches of 32. tf.data and Pillow get boxes that were drawn beforehand; ours and
torchvision draw theirs.

In the first table every pipeline is pinned to one core, with one thread; in the second ours has as
many threads, or processes, as cores. Measurements take turns and the median of the rounds' ratios
counts, so that other programs disturb all alike. As those also take some of the core, the ratio is
of images per second of processor time, summed over a pipeline's threads. What is said to be linear
needs as many idle cores as threads.
"""

import functools
import importlib.util
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import grain
import numpy as np
import pandas as pd
from absl import flags
from PIL import Image

from inception import command_line
from inception.data.crops import crop, sample_distorted_box, train_box, train_resize
from inception.data.folder import FolderSource
from inception.data.readers import read_example
from inception.data.stream import train_stream

ROUNDS = 9
BATCH = 32
HEIGHT, WIDTH = 375, 500  # of the files, about ImageNet's average

Pipeline = tuple[Callable[..., Iterator], tuple, int]  # what makes it, of what, and its cores


def write_photographs(root: Path, count: int = 32) -> list[Path]:
    """Writes JPEG files root/train/photograph/*.jpg of varied content; returns their paths."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = "astronaut coffee chelsea rocket retina hubble_deep_field immunohistochemistry"
    photographs = [getattr(data, name)() for name in names.split()] + load_sample_images().images
    rng = np.random.default_rng(0)
    folder = root / "train" / "photograph"
    folder.mkdir(parents=True)
    for i, photograph in zip(range(count), itertools.cycle(photographs), strict=False):
        height, width, _ = photograph.shape
        box = sample_distorted_box(rng, height, width, area=(0.4, 1.0), aspect=(1.33, 1.34))
        image = Image.fromarray(crop(photograph, box)).resize((WIDTH, HEIGHT))
        image.save(folder / f"{i:03}.jpg", quality=90)
    return sorted(folder.iterdir())


def _paths(root: Path) -> list[str]:
    return sorted(str(path) for path in root.glob("train/*/*"))


def _boxes() -> np.ndarray:
    """int32 [4096, 4]: y, x, height, width."""
    rng = np.random.default_rng(0)
    return np.array([sample_distorted_box(rng, HEIGHT, WIDTH) for _ in range(4096)], np.int32)


def ours(root: Path, size: int, augmentation: str, threads: int = 1) -> Iterator:
    """The training stream itself."""
    return train_stream(
        FolderSource(root, "train"),
        seed=0,
        image_size=size,
        batch_size=BATCH,
        augmentation=augmentation,
        threads=threads,
    )


def in_processes(root: Path, size: int, augmentation: str, processes: int) -> Iterator:
    """The same work in Grain's processes, of one thread each, in place of threads."""
    flags.FLAGS.mark_as_parsed()  # Grain's workers look at absl's flags
    make = functools.partial(_batch, root, size, augmentation)
    batches = grain.MapDataset.range(1 << 40).map(make)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(
        batches.to_iter_dataset(options).mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(num_workers=processes)
        )
    )


def _batch(root: Path, size: int, augmentation: str, step: int) -> np.ndarray:
    """Makes a whole batch, in whatever process it is called."""
    source, images = _source(root), np.empty((BATCH, size, size, 3), np.uint8)
    for row in range(BATCH):
        example = step * BATCH + row
        rng = np.random.default_rng(example)
        choose = functools.partial(train_box, rng, augmentation)
        pixels, _ = read_example(source, example % len(source), choose)
        train_resize(rng, pixels, augmentation, out=images[row])
    return images


_source = functools.cache(functools.partial(FolderSource, split="train"))


def tf_data(root: Path, size: int) -> Iterator:
    """What TensorFlow pipelines do: decode only the box, resize to float, back to uint8."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    paths = _paths(root)
    files = tf.constant(paths)

    def load(i, box):
        data = tf.io.read_file(files[i % len(paths)])
        image = tf.io.decode_and_crop_jpeg(data, box, channels=3)
        return tf.cast(tf.image.resize(image, (size, size)), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    dataset = tf.data.Dataset.from_tensor_slices(_boxes()).enumerate().repeat()
    dataset = dataset.map(load, num_parallel_calls=1).batch(BATCH).prefetch(1)
    return dataset.with_options(options).as_numpy_iterator()


def torchvision(root: Path, size: int) -> Iterator:
    """A DataLoader over an ImageFolder, in the process itself."""
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    crop = transforms.RandomResizedCrop(size, scale=(0.05, 1.0), ratio=(0.75, 1.33))
    both = transforms.Compose([crop, transforms.PILToTensor()])
    folder = datasets.ImageFolder(str(root / "train"), both)
    while True:
        yield from torch.utils.data.DataLoader(folder, BATCH, shuffle=True)


def pillow(root: Path, size: int) -> Iterator:
    """Pillow alone."""

    def load(path: str, box: np.ndarray) -> np.ndarray:
        y, x, height, width = box.tolist()
        with Image.open(path) as image:
            part = image.convert("RGB").crop((x, y, x + width, y + height))
        return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))

    endless = zip(itertools.cycle(_paths(root)), itertools.cycle(_boxes()), strict=False)
    while True:
        yield np.stack([load(*next(endless)) for _ in range(BATCH)])


def measure(
    pipeline: Callable[..., Iterator], args: tuple, cores: int, seconds: float
) -> tuple[float, float]:
    """Runs a fresh pipeline(*args) for `seconds`, after two batches that warm it up.

    Returns:
      Images per second, and images per second of processor time.
    """
    pin(cores)
    batches = pipeline(*args)
    for _ in range(2):
        next(batches)
    wall, processor, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        next(batches)
        count += BATCH
    return count / (time.perf_counter() - wall), count / (time.process_time() - processor)


def pin(cores: int) -> None:
    """Keeps this thread, and those it starts, on the first cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(cores))


def take_turns(pipelines: dict[str, Pipeline], seconds: float) -> pd.DataFrame:
    """`measure` for each pipeline, in interleaved rounds.

    Args:
      pipelines: by name. Each has a process of its own: TensorFlow and torch do not share one well.
      seconds: for each pipeline, over all rounds.

    Returns:
      Images per second "wall", and per second of processor time "core"; a line per round, and a
      column for each of the two and each name.
    """
    spawn = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in pipelines}
    rounds = [
        {
            name: pools[name].submit(measure, make, args, cores, seconds / ROUNDS).result()
            for name, (make, args, cores) in pipelines.items()
        }
        for _ in range(ROUNDS)
    ]
    for pool in pools.values():
        pool.shutdown()
    tables = (pd.DataFrame(rounds).map(lambda rates, i=i: rates[i]) for i in range(2))
    return pd.concat(dict(zip(("wall", "core"), tables, strict=True)), axis=1)


def compare(root: Path, size: int, seconds: float) -> pd.DataFrame:
    """The table of all pipelines on one core; empty where torchvision is not installed."""
    pipelines: dict[str, Pipeline] = {
        "tf.data, decode_and_crop": (tf_data, (root, size), 1),
        "ours": (ours, (root, size, "inception_fast"), 1),
        "ours, four resize methods": (ours, (root, size, "inception"), 1),
        "torchvision, DataLoader": (torchvision, (root, size), 1),
        "Pillow": (pillow, (root, size), 1),
    }
    names = list(pipelines)
    if not importlib.util.find_spec("torchvision"):
        del pipelines["torchvision, DataLoader"]
    rates = take_turns(pipelines, seconds)
    ratios = rates["core"].div(rates["core", names[0]], axis=0)
    columns = [rates["wall"].median(), rates["core"].median(), ratios.median()]
    table = pd.concat(columns, axis=1, keys=["images/s", "per core-second", "ratio"])
    return table.reindex(names).rename_axis("one core")


def scale(root: Path, size: int, threads: list[int], seconds: float) -> pd.DataFrame:
    """The table of ours with n threads, and with n processes instead, on n cores."""
    pipelines: dict[str, Pipeline] = {
        f"{n} {what}": (make, (root, size, "inception_fast", n), n)
        for what, make in (("threads", ours), ("processes", in_processes))
        for n in threads
    }
    rates = take_turns(pipelines, seconds)["wall"]
    cores = pd.Series({name: n for name, (_, _, n) in pipelines.items()})
    linear = rates.div(rates.iloc[:, 0] / threads[0], axis=0).median() / cores
    table = pd.concat([rates.median(), linear], axis=1, keys=["images/s", "of linear"])
    return table.rename_axis("ours, on as many cores")


def format_table(table: pd.DataFrame) -> str:
    """Returns the lines of a table: whole images, ratios to hundredths."""
    formats = (".2f" if name in ("ratio", "of linear") else ".0f" for name in table)
    cells = table.astype(object).where(table.notna(), None)
    return cells.to_markdown(tablefmt="simple", floatfmt=("", *formats), missingval="not installed")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the two tables."""
    parser = command_line.parser("python -m benchmarks.input", __doc__)
    parser.epilog = None  # there is no config
    parser.add_argument("--image_size", type=int, default=299)
    parser.add_argument("--seconds", type=float, default=15, help="for each pipeline, all rounds")
    parser.add_argument("--threads", default="1,2", help="how many, in the second table")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = write_photographs(root)
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        print(f"{len(paths)} JPEG files of {WIDTH}x{HEIGHT}, {kilobytes:.0f} kB on average\n")
        print(format_table(compare(root, args.image_size, args.seconds)), end="\n\n")
        threads = [int(n) for n in args.threads.split(",")]
        print(format_table(scale(root, args.image_size, threads, args.seconds)))


if __name__ == "__main__":
    sys.exit(command_line.run(main))
