"""Reads files of torch.save without PyTorch.

A file is a pickle of names, shapes and references to storages (pickles.py), and the storages
themselves. It is a zip archive of uncompressed members or, before PyTorch 1.6, a stream of pickles
(magic number, version, machine, content, keys of storages) followed by the storages. Source:
torch/serialization.py.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inception.weights.pickles import Inert, Refused, Storage, Tensor, unpickle

MAX_ENTRIES, MAX_DEPTH, MAX_NAME = 200_000, 8, 1000
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of a stream
_BIG_ENDIAN = "was written on a big-endian machine. Save it again on a little-endian one"
_SAVE_PLAIN = "Save it as float32, with tensor.resolve_conj().resolve_neg().float()"
_SAVE_STATE_DICT = "Save its state dict: torch.save(model.state_dict(), FILE)"


def open_pth(path: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    """The shapes of a file's tensors by name, and a function that reads one by name.

    A tensor in a nested dictionary is called "outer/inner", one in a list by its number. It is read
    in the type that it is stored in.

    Raises:
      Refused: If the file is of another kind or has no named tensors.
      Exception: Any other if the file is damaged; the function raises them too.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    is_zip = data[:4] == b"PK\x03\x04"
    content, place = _open_zip(path, data) if is_zip else _open_stream(data)
    tensors = _by_name(content)

    def read(name: str) -> np.ndarray:
        tensor = tensors[name]
        if tensor.unsupported:
            raise Refused(f"has a tensor {name} that {tensor.unsupported}. {_SAVE_PLAIN}")
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, tensor.dtype)
        start = place(tensor.storage)
        strides = tuple(stride * tensor.dtype.itemsize for stride in tensor.strides)
        with memoryview(data) as whole, whole[start : start + tensor.storage.nbytes] as stored:
            offset = tensor.offset * tensor.dtype.itemsize
            return np.ndarray(tensor.shape, tensor.dtype, stored, offset, strides).copy()

    return {name: tensor.shape for name, tensor in tensors.items()}, read


def _by_name(content: Any) -> dict[str, Tensor]:
    """The tensors in a dictionary and in its nested dictionaries and lists."""
    found: dict[str, Tensor] = {}
    others: list[str] = [content.name] if isinstance(content, Inert) else []
    waiting = [("", content, 0)] if isinstance(content, dict) else []
    seen = 0
    while waiting:
        outer, entries, depth = waiting.pop()
        seen += len(entries)
        if seen > MAX_ENTRIES:
            raise Refused(f"has more than {MAX_ENTRIES} entries. {_SAVE_STATE_DICT}")
        for inner, value in entries.items():
            name = outer + inner
            if len(name) > MAX_NAME:
                raise Refused(f"has a name of {len(name)} characters. {_SAVE_STATE_DICT}")
            if isinstance(value, list) and value and isinstance(value[0], Tensor):
                value = {str(number): part for number, part in enumerate(value)}
            if isinstance(value, Tensor):
                found[name] = value
            elif isinstance(value, dict) and depth < MAX_DEPTH:
                waiting.append((f"{name}/", value, depth + 1))
            elif isinstance(value, Inert):
                others.append(value.name)
    if not found:
        what = "".join(f", but {name[:MAX_NAME]}, which is not executed" for name in others[:1])
        raise Refused(f"has no named tensors{what}. {_SAVE_STATE_DICT}")
    return found


def _open_zip(path: Path, data: mmap.mmap) -> tuple[Any, Callable[[Storage], int]]:
    """The content, and a function that gives the offset of a storage."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
    root = next((name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")), "")
    if f"{root}constants.pkl" in members:
        raise Refused(f"is a TorchScript program, which is not executed. {_SAVE_STATE_DICT}")
    checked: dict[str, int] = {}

    def begin(name: str) -> int:
        if name not in checked:
            checked[name] = _check_member(data, members[name])
        return checked[name]

    def place(storage: Storage) -> int:
        name = f"{root}data/{storage.key}"
        if members[name].file_size != storage.nbytes:
            raise ValueError(f"{name[:MAX_NAME]} does not have {storage.nbytes} bytes")
        return begin(name)

    def member(name: str) -> bytes:
        start = begin(name)
        return data[start : start + members[name].file_size]

    if f"{root}byteorder" in members and member(f"{root}byteorder") != b"little":
        raise Refused(_BIG_ENDIAN)
    return unpickle(member(f"{root}data.pkl"), {}), place


def _check_member(data: mmap.mmap, member: zipfile.ZipInfo) -> int:
    """The offset of the bytes of an archive's member, after checking size and checksum."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise Refused("is a compressed archive, which torch.save does not write. Save it again")
    header = struct.unpack_from("<4s22xHH", data, member.header_offset)
    start = member.header_offset + 30 + header[1] + header[2]
    if header[0] != b"PK\x03\x04" or start + member.file_size > len(data):
        raise ValueError(f"{member.filename[:MAX_NAME]} is not where the archive index says")
    with memoryview(data) as whole, whole[start : start + member.file_size] as content:
        if zlib.crc32(content) != member.CRC:
            raise ValueError(f"the checksum of {member.filename[:MAX_NAME]} does not match")
    return start


def _open_stream(data: mmap.mmap) -> tuple[Any, Callable[[Storage], int]]:
    """The content, and a function that gives the offset of a storage."""
    magic = unpickle(data, {})
    if magic != _MAGIC or unpickle(data, {}) != _VERSION:
        raise Refused(f"is a pickle that torch.save did not write. {_SAVE_STATE_DICT}")
    if not unpickle(data, {})["little_endian"]:
        raise Refused(_BIG_ENDIAN)
    storages: dict[str, Storage] = {}
    content = unpickle(data, storages)
    places: dict[str, tuple[int, int]] = {}
    for key in unpickle(data, {}):
        (elements,) = struct.unpack("<q", data.read(8))
        places[key] = data.tell(), elements * storages[key].dtype.itemsize
        data.seek(places[key][1], 1)

    def place(storage: Storage) -> int:
        start, size = places[storage.key]
        if size != storage.nbytes:
            raise ValueError(f"storage {storage.key[:MAX_NAME]} has {size} bytes")
        return start

    return content, place
