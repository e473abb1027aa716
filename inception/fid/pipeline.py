"""Measures a set of images: decoded in threads, resized and summed up on the devices."""

import itertools
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from inception.fid import bridge, resize
from inception.fid.bridge import Mesh, UserError
from inception.fid.extract import Extractor
from inception.fid.files import Summary
from inception.fid.images import Images, Picture, first_line
from inception.fid.moments import add, empty, finish
from inception.fid.protocols import SIZE, Protocol
from inception.fid.statistics import Statistics, statistics_of

# Sets of at most this many images keep their features (82 MB of 2048), and their moments are
# float64 throughout: with few images the smallest eigenvalues are as small as float32's rounding.
FEW = 10_000
_CANVAS = 128  # images of mixed sizes are padded to multiples of it, so that few programs do
_SUMMED = 1024  # images whose features are added at once: every addition passes over d^2 sums


def measure(
    images: Images,
    extract: Extractor,
    *,
    keep: Sequence[str] = (),
    batch_size: int = 64,
    num: int = 0,
    seed: int = 0,
    threads: int = 0,
) -> Summary:
    """Computes the moments of all layers except the logits, and keeps features on request.

    Args:
      images: The set; images may differ in size.
      extract: The network.
      keep: Layers whose features are kept; d features take 4 d bytes an image.
      batch_size: Number of images in a batch, over all devices.
      num: Number of images to take, drawn with `seed`; 0 for all.
      seed: Seed of the draw.
      threads: Number of threads that decode; 0 for one per core.

    Raises:
      UserError: If there are fewer than two images or than `num`, one cannot be read, the set
        changes while it is read, or this is one of several processes.
    """
    if jax.process_count() > 1:
        raise UserError("files are measured by one process alone; several use fid.add")
    count = count_of(images, num)
    mesh = jax.tree.leaves(extract.variables)[0].sharding.mesh
    size = -(-min(batch_size, count) // mesh.size) * mesh.size
    totals = _Totals(extract, mesh, keep, count, size)
    formats: set[str] = set()
    sizes: set[tuple[int, int]] = set()
    deep = 0
    pause = 1 if sys.stderr.isatty() else 60  # seconds; a log is not filled with it
    with tqdm(
        desc=images.path, total=count, unit=" images", delay=pause, mininterval=pause, leave=False
    ) as bar:
        pictures = _read(images, _draw(images.count, count, seed), size, threads)
        while batch := list(itertools.islice(pictures, size)):
            pixels = [picture.pixels for picture in batch]
            inputs = _inputs(pixels, size, extract.settings.protocol, mesh)
            totals.add(extract.features_of_inputs(inputs), len(batch))
            formats |= {picture.format for picture in batch}
            sizes |= {(each.shape[0], each.shape[1]) for each in pixels}
            deep += sum(picture.is_deep for picture in batch)
            bar.update(len(batch))
    images.check()
    statistics, features = totals.finish()
    origin = extract.origin("")
    of_files = tuple(sorted(formats)), tuple(sorted(sizes)), deep
    return Summary(images.path, count, origin, statistics, features, *of_files)


def count_of(images: Images, num: int = 0) -> int:
    """Number of images of a set that are measured.

    Args:
      images: The set.
      num: Number of images wanted; 0 for all.

    Raises:
      UserError: If there are fewer than `num`, or than two.
    """
    count = num or images.count
    if count > images.count:
        raise UserError(f"{images.path} has {images.count:,} images, fewer than the {num:,} wanted")
    if count < 2:
        raise UserError(f"{images.path}: {count} image: a covariance needs at least 2")
    return count


class _Totals:
    """Features of a small set, moments of a large one, by layer."""

    def __init__(
        self, extract: Extractor, mesh: Mesh, keep: Sequence[str], count: int, batch_size: int
    ):
        self._extract, self._keep = extract, keep
        self._devices = mesh.size
        self._group = max(1, min(_SUMMED, count) // batch_size)  # batches that are added at once
        self._waiting: list[tuple[dict[str, jax.Array], np.ndarray]] = []
        is_few = count <= FEW
        self._rows: dict[str, list[np.ndarray]] = {
            name: []
            for name in extract.settings.layers
            if name in keep or (is_few and name != "logits")
        }
        self._moments = {} if is_few else empty(extract, mesh)

    def add(self, features: dict[str, jax.Array], count: int) -> None:
        """Adds the first `count` rows of a batch."""
        if self._moments:
            if self._waiting:  # or pixels would wait in memory for the devices
                jax.block_until_ready(self._waiting[-1])
            rows = len(next(iter(features.values())))
            wanted = {name: features[name] for name in self._moments}
            self._waiting.append((wanted, np.arange(rows) < count))
            if len(self._waiting) == self._group:
                self._add_waiting()
        for name, kept in self._rows.items():
            kept.append(np.asarray(features[name])[:count])

    def _add_waiting(self) -> None:
        """Adds the batches that wait, filled up to a whole group so that one program serves all."""
        features, mask = self._waiting[-1]
        missing = self._group - len(self._waiting)
        batches = [*self._waiting, *[(features, np.zeros_like(mask))] * missing]
        jax.block_until_ready(self._moments)
        self._moments = _add(self._moments, *zip(*batches, strict=True), devices=self._devices)
        self._waiting = []

    def finish(self) -> tuple[dict[str, Statistics], dict[str, np.ndarray]]:
        """Returns the moments of all layers, and the features that were asked for."""
        features = {name: np.concatenate(rows) for name, rows in self._rows.items()}
        if self._waiting:
            self._add_waiting()
        statistics = finish(self._moments)
        for name, rows in features.items():
            if name != "logits" and name not in statistics:
                statistics[name] = statistics_of(rows, self._extract.origin(name))
        return statistics, {name: features[name] for name in features if name in self._keep}


@partial(jax.jit, static_argnames="devices", donate_argnums=0)
def _add(moments: Any, features: tuple, masks: tuple, *, devices: int) -> Any:
    """The moments with several batches, the rows of which stay on their devices."""

    def joined(*batches: jax.Array) -> jax.Array:
        rows = [each.reshape(devices, -1, *each.shape[1:]) for each in batches]
        return jnp.concatenate(rows, axis=1).reshape(-1, *batches[0].shape[1:])

    return add(moments, jax.tree.map(joined, *features), joined(*masks))


def _draw(total: int, count: int, seed: int) -> set[int] | None:
    """Draws the indices of `count` of `total` images; None for all."""
    if count == total:
        return None
    return set(np.random.default_rng(seed).choice(total, count, replace=False).tolist())


def _read(images: Images, chosen: set[int] | None, ahead: int, threads: int) -> Iterator[Picture]:
    """Yields images in order; threads decode `ahead` of them while the devices compute."""
    waiting: deque[tuple[str, Future[Picture]]] = deque()
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for index, (name, read) in enumerate(images.items):
            if chosen is None or index in chosen:
                waiting.append((name, pool.submit(read)))
            if len(waiting) > ahead:
                yield _result(images, *waiting.popleft())
        while waiting:
            yield _result(images, *waiting.popleft())


def _result(images: Images, name: str, picture: "Future[Picture]") -> Picture:
    try:
        return picture.result()
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and a bucket's client raise all kinds
        images.check()  # of a file that has changed, that is said
        raise UserError(f"{name}: {first_line(error)}") from error


def _inputs(pixels: Sequence[np.ndarray], size: int, protocol: Protocol, mesh: Mesh) -> jax.Array:
    """The network's inputs [size, 299, 299, 3] of at most `size` images; the rest is arbitrary."""
    if len({each.shape for each in pixels}) == 1:
        stack = np.zeros((size, *pixels[0].shape), np.uint8)
        stack[: len(pixels)] = pixels
        on_devices = jax.device_put(stack, bridge.split(mesh))
        return _resized(on_devices, *_taps(pixels[0].shape, protocol), protocol=protocol)
    inputs = [_alone(each, protocol) for each in pixels]
    inputs += [jnp.zeros_like(inputs[0])] * (size - len(inputs))
    return jax.device_put(jnp.concatenate(inputs), bridge.split(mesh))


def _alone(pixels: np.ndarray, protocol: Protocol) -> jax.Array:
    """An image of any size, on a canvas of which its taps see only the image."""
    height, width = (-(-side // _CANVAS) * _CANVAS for side in pixels.shape[:2])
    canvas = np.zeros((1, height, width, 3), np.uint8)
    canvas[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    return _resized(canvas, *_taps(pixels.shape, protocol), protocol=protocol)


def _taps(shape: tuple[int, ...], protocol: Protocol) -> list[resize.Taps]:
    return [resize.taps(side, SIZE, protocol.resize) for side in shape[:2]]


@partial(jax.jit, static_argnames="protocol")
def _resized(
    images: jax.Array, rows: resize.Taps, columns: resize.Taps, *, protocol: Protocol
) -> jax.Array:
    return resize.scale(resize.resize(images, rows, columns), protocol)
