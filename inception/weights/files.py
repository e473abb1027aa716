"""Reads weights files of every supported format as named arrays; nothing in a file is executed.

Names and shapes are known before any array is read, so that a caller can check them first and read
only the arrays it expects.
"""

import glob
import hashlib
import io
import os
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inception.errors import UserError
from inception.weights import keras_names, pth

# A float64 network with the state of its optimizer is 0.65 GiB.
MAX_BYTES = 2 << 30

_TENSORFLOW_TABLE = struct.pack(
    "<Q", 0xDB4775248B80FB57
)  # the end of V1 checkpoints and of V2 indices
_V2_FILES = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")

_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", "model.weights.h5")

Shapes = dict[str, tuple[int, ...]]
Read = Callable[[str], np.ndarray]


class WeightsError(UserError, ValueError):
    """Weights that cannot be used; the message names the file and the tensors in question."""


@dataclass(frozen=True)
class Tensors:
    """The content of a file.

    Attributes:
      format: "safetensors", "pytorch", "keras" or "tensorflow".
      shapes: Shape of every array, by name.
      read: Reads the array of a name, in the type that it is stored in.
    """

    format: str
    shapes: Shapes
    read: Read


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Tensors]:
    """Opens a weights file and recognizes its format by its content.

    Args:
      path: A .safetensors, .pth, .h5, .weights.h5, .keras or V1 .ckpt file, or the prefix or any
        file of a V2 checkpoint.

    Raises:
      WeightsError: If the file is missing, too large, damaged, of an unknown format, or needs a
        library that is not installed. `read` raises it too.
    """
    files = files_of(path)
    _check_size(path, sum(file.stat().st_size for file in files))
    with ExitStack() as stack:
        with _reporting_damage(path):
            kind = _format(files[0])
            shapes, read = _READERS[kind](files[0], stack)

        def guarded(name: str) -> np.ndarray:
            with _reporting_damage(path):
                return read(name)

        yield Tensors(kind, shapes, guarded)


def files_of(path: str | Path) -> list[Path]:
    """The file, or all files of the V2 checkpoint that `path` is the prefix or a file of.

    If `path` is a folder downloaded from Hugging Face, the weights file in it.

    Raises:
      WeightsError: If there is no such file.
    """
    path = Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib fails if ~NAME is nobody)
    path = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), path)
    prefix = _V2_FILES.sub("", str(path))
    if Path(f"{prefix}.index").is_file():
        parts = path.parent.glob(f"{glob.escape(Path(prefix).name)}.data-*")
        return [Path(f"{prefix}.index"), *sorted(parts)]
    if path.is_file():
        return [path]
    raise WeightsError(f"weights file {path} not found. Give a file or the prefix of a checkpoint")


def sha256(path: str | Path) -> str:
    """The SHA-256 of the file's content, or of all files of a V2 checkpoint in order."""
    digest = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def check_tensors(
    path: str | Path, found: Shapes, expected: Shapes, ours: Mapping[str, str] | None = None
) -> None:
    """Compares the arrays in a file with those that a network needs.

    Args:
      path: The file, for messages.
      found: Shapes in the file, by name.
      expected: Shapes that the network needs, by the same names.
      ours: Our name of each array, where it differs from the file's.

    Raises:
      WeightsError: If arrays are missing, unknown or of another shape; the message lists them.
    """
    ours = ours or {}
    missing = [
        f"{name} ({ours[name]})" if name in ours else name
        for name in expected.keys() - found.keys()
    ]
    problems = {
        "missing": missing,
        "not in this network": list(found.keys() - expected.keys()),
        "of another shape": [
            f"{name} {found[name]}, not {expected[name]}"
            for name in expected.keys() & found.keys()
            if found[name] != expected[name]
        ],
    }
    if any(problems.values()):
        lists = [_listed(problem, names) for problem, names in problems.items() if names]
        raise WeightsError(f"{path} does not hold this network's weights.\n" + "\n".join(lists))


def _listed(problem: str, names: list[str], limit: int = 20) -> str:
    more = f"\n  and {len(names) - limit} more" if len(names) > limit else ""
    lines = "".join(f"\n  {name}" for name in sorted(names)[:limit])
    return f"{len(names)} {problem}:{lines}{more}"


@contextmanager
def _reporting_damage(path: str | Path) -> Iterator[None]:
    """Turns whatever a library raises for a truncated, altered or malicious file into one error."""
    try:
        yield
    except UserError:
        raise
    except pth.Refused as error:
        raise WeightsError(f"{path} {error}") from error
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"{path} cannot be read: it is damaged or not a weights file ({reason}). Download or "
            "save it again"
        ) from error


def _check_size(path: str | Path, size: int) -> None:
    if size > MAX_BYTES:
        raise WeightsError(
            f"{path} has {size} bytes, more than the {MAX_BYTES} that an Inception-v3 can have. "
            "Give a file of Inception-v3 weights"
        )


def _format(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(16)
        stream.seek(-min(8, path.stat().st_size), io.SEEK_END)
        end = stream.read()
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if start.startswith(b"PK\x03\x04"):
        return "keras" if _KERAS_MEMBER in zipfile.ZipFile(path).namelist() else "pytorch"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":  # PyTorch before 1.6
        return "pytorch"
    if start[8:9] == b"{":
        return "safetensors"
    if end == _TENSORFLOW_TABLE:
        return "tensorflow"
    raise WeightsError(
        f"{path} is damaged or of an unknown format. Supported are .safetensors, .pth, .h5, "
        ".weights.h5, .keras and TensorFlow checkpoints"
    )


def _open_safetensors(path: Path, stack: ExitStack) -> tuple[Shapes, Read]:
    import safetensors

    file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, file.get_tensor  # noqa: SIM118


def _open_pytorch(path: Path, stack: ExitStack) -> tuple[Shapes, Read]:
    return pth.open_pth(path)


_KERAS_MEMBER = "model.weights.h5"


def _open_keras(path: Path, stack: ExitStack) -> tuple[Shapes, Read]:
    import h5py

    source: Path | io.BytesIO = path
    if zipfile.is_zipfile(path):
        archive = stack.enter_context(zipfile.ZipFile(path))
        _check_size(path, archive.getinfo(_KERAS_MEMBER).file_size)
        source = io.BytesIO(archive.read(_KERAS_MEMBER))
    file = stack.enter_context(h5py.File(source, "r"))
    places = keras_names.places(file)
    shapes = {name: tuple(file[place].shape) for name, place in places.items()}
    return shapes, lambda name: file[places[name]][()]


def _open_tensorflow(path: Path, stack: ExitStack) -> tuple[Shapes, Read]:
    import tensorflow as tf

    # TensorFlow reads the path as a glob pattern, so it is given one without * ? [ \\.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    prefix = _V2_FILES.sub("", path.name)
    for file in files_of(path):
        (folder / f"model{file.name.removeprefix(prefix)}").symlink_to(file.absolute())
    reader = tf.train.load_checkpoint(str(folder / "model"))
    shapes = reader.get_variable_to_shape_map()
    return {name: tuple(shape) for name, shape in shapes.items()}, reader.get_tensor


_READERS: dict[str, Callable[[Path, ExitStack], tuple[Shapes, Read]]] = {
    "safetensors": _open_safetensors,
    "pytorch": _open_pytorch,
    "keras": _open_keras,
    "tensorflow": _open_tensorflow,
}
