"""torch.save's files written by hand, without PyTorch, in both formats.

A whole network takes little room: an array that repeats one value is stored as that value.
"""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inception import Inception
from inception.weights import names
from inception.weights.pretrained import shapes_of

STORAGES = {
    **{"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16"},
    **{"int64": "Long", "int32": "Int", "uint8": "Byte", "bool": "Bool"},
}


@dataclass(frozen=True)
class Global:
    """A name that a pickle refers to, "module name"."""

    name: str


@dataclass(frozen=True)
class Call:
    """What a pickle asks to be called."""

    function: Global
    arguments: tuple


def torch_shapes(classes: int = 5, aux_head: bool = True) -> dict[str, tuple[int, ...]]:
    """Shapes of torchvision's state dict by name, without the counts of batches."""
    model = Inception(classes, aux_head="bn" if aux_head else "none", batch_norm_scale=True)
    shapes = shapes_of(model)
    return {
        name: names.to_source(names.TORCH, ours, np.empty(shapes[ours], bool)).shape
        for ours, name in names.table(names.TORCH, shapes).items()
    }


def network(fill: float = 0, **options: Any) -> dict[str, np.ndarray]:
    """A state dict of torchvision's, each tensor of one value."""
    value = np.float32(fill)
    return {name: np.broadcast_to(value, shape) for name, shape in torch_shapes(**options).items()}


def write_pth(
    path: Path, content: Any, *, stream: bool = False, byteorder: bytes = b"little"
) -> Path:
    """Writes what torch.save would write, arrays being tensors."""
    pickle = Pickle(stream)
    data = b"\x80\x02" + pickle.of(content) + b"."
    if not stream:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", byteorder)
            archive.writestr("archive/version", b"3\n")
            for key, array in enumerate(pickle.storages):
                archive.writestr(f"archive/data/{key}", array.tobytes())
        return path
    with path.open("wb") as file:
        system = {"little_endian": byteorder == b"little"}
        keys = [str(key) for key in range(len(pickle.storages))]
        for part in (0x1950A86A20F9469CFC6C, 1001, system):
            file.write(b"\x80\x02" + Pickle().of(part) + b".")
        file.write(data + b"\x80\x02" + Pickle().of(keys) + b".")
        for array in pickle.storages:
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


class Pickle:
    """Writes values as instructions of a pickle; keeps the storages of arrays."""

    def __init__(self, stream: bool = False) -> None:
        self.stream = stream
        self.storages: list[np.ndarray] = []

    def of(self, value: Any) -> bytes:
        """The instructions that make a value."""
        if isinstance(value, str):
            return b"X" + struct.pack("<I", len(value)) + value.encode()
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(content)]) + content
        if isinstance(value, dict):
            items = b"".join(self.of(part) for item in value.items() for part in item)
            return b"}(" + items + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(map(self.of, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self.of, value)) + b"t"
        if isinstance(value, Global):
            return b"c" + value.name.replace(" ", "\n").encode() + b"\n"
        if isinstance(value, Call):
            return self.of(value.function) + self.of(value.arguments) + b"R"
        return self._tensor(value)

    def _tensor(self, array: np.ndarray) -> bytes:
        if array.ndim and not any(array.strides):
            stored, strides = array[(slice(1),) * array.ndim].copy(), array.strides
        else:
            stored = np.ascontiguousarray(array).reshape(array.shape)
            strides = stored.strides
        kind = Global(f"torch {STORAGES[array.dtype.name]}Storage")
        place = ("storage", kind, str(len(self.storages)), "cpu", stored.size)
        self.storages.append(stored)
        steps = tuple(stride // array.itemsize for stride in strides)
        rest = map(self.of, (0, array.shape, steps, False, {}))
        view = (None,) if self.stream else ()
        arguments = b"(" + self.of((*place, *view)) + b"Q" + b"".join(rest) + b"t"
        return self.of(Global("torch._utils _rebuild_tensor_v2")) + arguments + b"R"


def without(tensors: dict, *beginnings: str) -> dict:
    """Shapes or arrays by name, but for names with these beginnings."""
    return {name: value for name, value in tensors.items() if not name.startswith(beginnings)}
