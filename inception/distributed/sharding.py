"""Devices: the mesh, and how states and batches are placed on it.

Training is data parallel: one mesh axis "data", the state on every device, the batch split.
Several processes run the same program, each feeding its slice of the global batch.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from inception.errors import ConfigError


def make_mesh(local: bool = False) -> Mesh:
    """A mesh of all devices with one axis, "data".

    Devices are ordered by process, so that the rows of a batch are in the order in which a single
    process has them. (`jax.make_mesh` follows the wires of a TPU slice, which cross hosts.) The
    axis is of type Auto, because flax's dropout fails on JAX's default, Explicit.

    Args:
      local: Whether to take only the devices of this process, one of several.

    Raises:
      ConfigError: If the processes have different numbers of devices.
    """
    devices = jax.local_devices() if local else jax.devices()
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        raise ConfigError(
            f"the processes have different numbers of devices, {dict(counts)}. Each gets an equal "
            "part of every batch: start all with the same number of devices"
        )
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of a training state: a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def is_main_process() -> bool:
    """Whether this process writes logs and results."""
    return jax.process_index() == 0


def to_devices(mesh: Mesh, batches: Iterable[dict[str, np.ndarray]], ahead: int = 2) -> Iterator:
    """Copies this process's slices of batches to the devices, `ahead` batches before their use.

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
    """Shapes and types of a tree, with the sharding of `replicated`."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
