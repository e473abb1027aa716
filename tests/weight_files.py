"""Files of the whole network, all zeros, that take no room on the disk.

HDF5 stores no array that was never written; the layout is the older one of Keras, with the layers'
names. A safetensors file is a header and a hole.
"""

import json
import math
from pathlib import Path

import h5py
import numpy as np

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


def torch_shapes(classes: int, aux_head: bool = False) -> dict[str, tuple[int, ...]]:
    """Shapes of PyTorch's tensors by name."""
    model = Inception(classes, aux_head="bn" if aux_head else "none", batch_norm_scale=True)
    shapes = shapes_of(model)
    return {
        theirs: names.to_source(names.TORCH, ours, np.empty(shapes[ours], bool)).shape
        for ours, theirs in names.table(names.TORCH, shapes).items()
    }


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """Writes zeros of these shapes, for which the disk needs no room."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path
