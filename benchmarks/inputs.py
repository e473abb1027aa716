"""Input pipelines, ours and others': random boxes of JPEG files, resized bilinearly, in batches.

tf.data and Pillow get precomputed boxes; torchvision and ours draw their own.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.cases import OURS, STORED, Case, Contender
from benchmarks.photographs import HEIGHT, WIDTH
from inception.data.crops import sample_distorted_box


def data(case: Case) -> Contender:
    """The pipeline that the case names, on the JPEG files in the config's data_dir."""
    if case.contender.partition(",")[0] == OURS:
        return _ours(case)
    make, description = {
        "tf.data": (tf_data, "decode_and_crop_jpeg, resize to float, back to uint8"),
        "torchvision": (
            torchvision,
            "ImageFolder, RandomResizedCrop, DataLoader (with several threads: as many processes, "
            "whose processor time is not counted)",
        ),
        "pillow": (pillow, "decodes the whole file, crops and resizes; one thread"),
    }[case.contender]
    batches = make(Path(case.fields["data_dir"]), case.size, case.batch, case.threads)
    return Contender(lambda: next(batches), lambda: None, description, stored=STORED)


def _ours(case: Case) -> Contender:
    from inception.data.folder import FolderSource
    from inception.data.stream import train_stream

    augmentation = case.fields["augmentation"]
    batches = train_stream(
        FolderSource(case.fields["data_dir"], "train"),
        seed=0,
        image_size=case.size,
        batch_size=case.batch,
        augmentation=augmentation,
        threads=case.threads,
    )
    description = f"the training stream: crops and resizing of augmentation {augmentation}"
    return Contender(lambda: next(batches), lambda: None, description, stored=STORED)


def _paths(root: Path) -> list[str]:
    return sorted(str(path) for path in root.glob("train/*/*"))


def _boxes() -> np.ndarray:
    """Random boxes, int32 [4096, 4]: y, x, height, width."""
    rng = np.random.default_rng(0)
    return np.array([sample_distorted_box(rng, HEIGHT, WIDTH) for _ in range(4096)], np.int32)


def tf_data(root: Path, size: int, batch: int, threads: int) -> Iterator[np.ndarray]:
    """tf.data, which decodes only the box."""
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
    """A DataLoader, in this process for one thread, else with a process for each."""
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
