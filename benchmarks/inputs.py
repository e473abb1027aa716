"""Other people's input: a random box of 5 to 100 % of a JPEG file, resized bilinearly, in batches.

tf.data and Pillow get boxes that were drawn beforehand; torchvision draws its own, as ours does.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photographs import HEIGHT, WIDTH
from benchmarks.work import STORED, Side, Work
from inception.data.crops import sample_distorted_box


def data(work: Work) -> Side:
    """The pipeline that the work's side names, on the JPEG files in the config's data_dir."""
    make, does = {
        "tf.data": (tf_data, "decode_and_crop_jpeg, resize to float, back to uint8"),
        "torchvision": (
            torchvision,
            "ImageFolder, RandomResizedCrop, DataLoader (with several threads: as many processes, "
            "whose processor time is not counted)",
        ),
        "pillow": (pillow, "decodes the whole file, crops and resizes; one thread"),
    }[work.side]
    batches = make(Path(work.fields["data_dir"]), work.size, work.batch, work.threads)
    return Side(lambda: next(batches), lambda: None, does, stored=STORED)


def _paths(root: Path) -> list[str]:
    return sorted(str(path) for path in root.glob("train/*/*"))


def _boxes() -> np.ndarray:
    """int32 [4096, 4]: y, x, height, width."""
    rng = np.random.default_rng(0)
    return np.array([sample_distorted_box(rng, HEIGHT, WIDTH) for _ in range(4096)], np.int32)


def tf_data(root: Path, size: int, batch: int, threads: int) -> Iterator[np.ndarray]:
    """What TensorFlow pipelines do: decode only the box."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    paths = _paths(root)
    files = tf.constant(paths)

    def load(i, box):
        encoded = tf.io.read_file(files[i % len(paths)])
        image = tf.io.decode_and_crop_jpeg(encoded, box, channels=3)
        return tf.cast(tf.image.resize(image, (size, size)), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    dataset = tf.data.Dataset.from_tensor_slices(_boxes()).enumerate().repeat()
    dataset = dataset.map(load, num_parallel_calls=threads).batch(batch).prefetch(1)
    return dataset.with_options(options).as_numpy_iterator()


def torchvision(root: Path, size: int, batch: int, threads: int) -> Iterator:
    """A DataLoader; with one thread in the process itself, else with as many processes."""
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    crop = transforms.RandomResizedCrop(size, scale=(0.05, 1.0), ratio=(0.75, 1.33))
    both = transforms.Compose([crop, transforms.PILToTensor()])
    folder = datasets.ImageFolder(str(root / "train"), both)
    workers = threads if threads > 1 else 0
    loader = torch.utils.data.DataLoader(
        folder, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        yield from loader


def pillow(root: Path, size: int, batch: int, threads: int) -> Iterator[np.ndarray]:
    """Pillow alone, in this thread."""

    def load(path: str, box: np.ndarray) -> np.ndarray:
        y, x, height, width = box.tolist()
        with Image.open(path) as image:
            part = image.convert("RGB").crop((x, y, x + width, y + height))
        return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))

    endless = zip(itertools.cycle(_paths(root)), itertools.cycle(_boxes()), strict=False)
    while True:
        yield np.stack([load(*next(endless)) for _ in range(batch)])
