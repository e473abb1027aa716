"""Devices: the only file that knows about meshes.

Training is data parallel: one mesh axis "data", the state on every device, the batch split.
Several processes run the same program, each feeding its slice of the global batch.
"""

import contextlib
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from inception.errors import ConfigError


def make_mesh(local: bool = False) -> Mesh:
    """Gathers all devices, and keeps compiled programs on disk for the next start.

    They are kept in ~/.cache/inception, or where JAX_COMPILATION_CACHE_DIR says; nowhere if there
    is no home directory, as in a container whose user has none.

    Args:
      local: gathers only the devices of this process, one of several.

    Returns:
      A mesh of all devices with the one axis "data", process after process, so that the rows of a
      batch stand in the order in which one process alone has them. (`jax.make_mesh` follows the
      wires of a TPU slice, which cross hosts.) Auto axes: flax's dropout fails on JAX's default,
      Explicit.

    Raises:
      ConfigError: if processes have different numbers of devices.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        with contextlib.suppress(RuntimeError):
            cache = Path.home() / ".cache" / "inception"
            jax.config.update("jax_compilation_cache_dir", str(cache))
    devices = jax.local_devices() if local else jax.devices()
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        raise ConfigError(
            f"the processes have different numbers of devices, {dict(counts)}. Each has an equal "
            "part of every batch: start them with as many devices each"
        )
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The state's sharding: the whole of it on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """A batch's sharding: its first axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def is_main_process() -> bool:
    """Whether this process writes logs and results."""
    return jax.process_index() == 0


def to_devices(mesh: Mesh, batches: Iterable[dict[str, np.ndarray]], ahead: int = 2) -> Iterator:
    """Puts this process's slices of batches on the devices, `ahead` of their use.

    Yields:
      The same dictionaries with global arrays, split over the mesh.
    """
    sharding = split(mesh)
    put = lambda array: jax.make_array_from_process_local_data(sharding, array)  # noqa: E731
    arrays = ({name: put(array) for name, array in batch.items()} for batch in batches)
    queue = deque(islice(arrays, ahead))
    while queue:
        yield queue.popleft()
        queue.extend(islice(arrays, 1))


def abstract(mesh: Mesh, shapes: Any) -> Any:
    """Shapes and types of a tree, with the sharding of arrays that are on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
