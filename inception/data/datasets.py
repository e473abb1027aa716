"""The data sets that a config trains and evaluates on."""

from collections.abc import Iterator

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception.data import DataError
from inception.data.folder import FolderSource
from inception.data.sources import Source, open_source
from inception.data.stream import train_stream
from inception.distributed import sharding


def open_train_source(config: ConfigDict) -> Source:
    """Opens the config's training split.

    Raises:
      DataError: see `open_source`.
    """
    return open_source(
        config.dataset, config.split, config.data_dir, on_bad_record=config.on_bad_record
    )


def check_trainable(config: ConfigDict, source: Source) -> None:
    """Refuses data of fewer than two classes, from which nothing can be learned.

    Raises:
      DataError: For such data.
    """
    if source.num_classes > 1:
        return
    name = f" {source.class_names[0]!r}" if source.class_names else ""
    advice = (
        f". config.data_dir={config.data_dir!r} may be one folder too deep or too high: images "
        f"belong in DATA_DIR/{config.split}/CLASS/"
        if isinstance(source, FolderSource)
        else ". Name data of two classes or more"
    )
    raise DataError(
        f"{config.dataset}:{config.split} has one class{name} only, so nothing can be learned"
        + advice
    )


def train_batches(config: ConfigDict, source: Source, mesh: Mesh, first: int) -> Iterator[dict]:
    """The config's training batches `first`, first + 1, ... on the devices, see `train_stream`.

    Raises:
      DataError: see `train_stream`.
    """
    batches = train_stream(
        source,
        seed=config.seed,
        image_size=config.image_size,
        batch_size=config.batch_size,
        augmentation=config.augmentation,
        on_bad_record=config.on_bad_record,
        max_pixels=config.max_pixels,
        threads=config.data_threads,
        start_step=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return sharding.to_devices(mesh, batches)


def open_eval_source(config: ConfigDict) -> Source:
    """Opens the config's evaluation split.

    Raises:
      DataError: see `open_source`.
    """
    dataset, data_dir = eval_data(config)
    return open_source(dataset, config.eval.split, data_dir)


def eval_data(config: ConfigDict) -> tuple[str, str]:
    """The data set to evaluate on and its directory: training's where the config names none."""
    return config.eval.dataset or config.dataset, config.eval.data_dir or config.data_dir
