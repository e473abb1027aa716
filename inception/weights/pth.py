"""Reads what torch.save writes, without PyTorch.

A file is a pickle of names, shapes and places (pickles.py), and the storages that the places are
in: a zip archive of uncompressed members, or, before PyTorch 1.6, one stream: the pickles of a
magic number, a version, the machine, the content and the storages' keys, then each storage. Source:
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
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the stream
_BIG_ENDIAN = "was written on a big-endian machine: save it again on another"
_SAVE_STATE_DICT = "save its state dict: torch.save(model.state_dict(), FILE)"


def open_pth(path: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    """The shapes of a file's tensors by name, and what reads one, in the type it is stored in.

    The name of a tensor in a dictionary inside another is "outer/inner"; in a list, its number.

    Raises:
      Refused: When the file is not of this kind or holds no tensors by name.
      Exception: Of any kind when it is damaged; `read` raises them too.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    is_zip = data[:4] == b"PK\x03\x04"
    content, place = _open_zip(path, data) if is_zip else _open_stream(data)
    tensors = _by_name(content)

    def read(name: str) -> np.ndarray:
        tensor = tensors[name]
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, tensor.dtype)
        start = place(tensor.storage)
        strides = tuple(stride * tensor.dtype.itemsize for stride in tensor.strides)
        with memoryview(data) as whole, whole[start : start + tensor.storage.nbytes] as stored:
            offset = tensor.offset * tensor.dtype.itemsize
            return np.ndarray(tensor.shape, tensor.dtype, stored, offset, strides).copy()

    return {name: tensor.shape for name, tensor in tensors.items()}, read


def _by_name(content: Any) -> dict[str, Tensor]:
    """The tensors in a dictionary, and in the dictionaries and lists in it."""
    found: dict[str, Tensor] = {}
    others: list[str] = [content.name] if isinstance(content, Inert) else []
    waiting = [("", content, 0)] if isinstance(content, dict) else []
    seen = 0
    while waiting:
        outer, entries, depth = waiting.pop()
        seen += len(entries)
        if seen > MAX_ENTRIES:
            raise Refused(f"holds more than {MAX_ENTRIES} entries: {_SAVE_STATE_DICT}")
        for inner, value in entries.items():
            name = outer + inner
            if len(name) > MAX_NAME:
                raise Refused(f"holds a name of {len(name)} characters: {_SAVE_STATE_DICT}")
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
        raise Refused(f"holds no tensors by name{what}: {_SAVE_STATE_DICT}")
    return found


def _open_zip(path: Path, data: mmap.mmap) -> tuple[Any, Callable[[Storage], int]]:
    """The content, and where in the file a storage begins."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
    root = next((name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")), "")
    if f"{root}constants.pkl" in members:
        raise Refused(f"is a TorchScript program, which is not executed: {_SAVE_STATE_DICT}")
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
    """Where the bytes of an archive's member begin; they are all there and as they were written."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise Refused("is a compressed archive, and torch.save compresses nothing: save it again")
    header = struct.unpack_from("<4s22xHH", data, member.header_offset)
    start = member.header_offset + 30 + header[1] + header[2]
    if header[0] != b"PK\x03\x04" or start + member.file_size > len(data):
        raise ValueError(f"{member.filename[:MAX_NAME]} is not where the archive says")
    with memoryview(data) as whole, whole[start : start + member.file_size] as content:
        if zlib.crc32(content) != member.CRC:
            raise ValueError(f"the checksum of {member.filename[:MAX_NAME]} does not match")
    return start


def _open_stream(data: mmap.mmap) -> tuple[Any, Callable[[Storage], int]]:
    """The content, and where in the file a storage begins."""
    magic = unpickle(data, {})
    if magic != _MAGIC or unpickle(data, {}) != _VERSION:
        raise Refused(f"is a pickle that torch.save did not write: {_SAVE_STATE_DICT}")
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
