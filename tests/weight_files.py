"""Keras files of the whole network that take no room: HDF5 stores no array that was never written.

All values are 0. The layout is the older one of Keras, with the layers' names.
"""

from pathlib import Path

import h5py

from inception import Inception
from inception.weights import names
from inception.weights.pretrained import shapes_of


def keras_shapes(classes: int, offset: int = 0) -> dict[str, tuple[int, ...]]:
    """Shapes by place in the file, the layers' numbers beginning with `offset`."""
    shapes = shapes_of(Inception(classes, aux_head="none"))
    found = {}
    for ours, name in names.table(names.KERAS, shapes).items():
        layer, weight = name.split("/")
        kind, _, number = layer.rpartition("_")
        if kind:
            layer = f"{kind}_{int(number) + offset}".removesuffix("_0")
        found[f"{layer}/{layer}/{weight}:0"] = shapes[ours]
    return found


def write_hdf5(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """Writes arrays of these shapes."""
    with h5py.File(path, "w") as file:
        for place, shape in shapes.items():
            file.create_dataset(place, shape, "f4")
    return path
