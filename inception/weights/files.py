"""Files of weights as named arrays, whatever wrote them; nothing in a file is executed.

A file's names and shapes are known before an array of it is read, so that a caller reads only what
it expects, of the size that it expects.
"""

import glob
import hashlib
import io
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

# A float64 network with its optimizer's state is 0.65 GiB.
MAX_BYTES = 2 << 30

_TENSORFLOW_TABLE = struct.pack("<Q", 0xDB4775248B80FB57)  # ends V1 checkpoints and V2's index
_V2_FILES = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")

_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", "model.weights.h5")

Shapes = dict[str, tuple[int, ...]]
Read = Callable[[str], np.ndarray]


class WeightsError(UserError, ValueError):
    """Weights that cannot be used; the message names the file, and the tensors on both sides."""


@dataclass(frozen=True)
class Tensors:
    """What a file holds.

    Attributes:
      format: "safetensors", "pytorch", "keras" or "tensorflow".
      shapes: of every array, by name.
      read: makes the array of a name, in the type that the file has it in.
    """

    format: str
    shapes: Shapes
    read: Read


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Tensors]:
    """Opens a file of weights, whose format is recognized by its content.

    Args:
      path: a .safetensors, .pth, .h5, .weights.h5, .keras or V1 .ckpt file, or the prefix or any
        file of a V2 checkpoint.

    Raises:
      WeightsError: when there is none, or it is too large, of no known format, damaged, or needs
        a library that is not installed. `read` raises it too.
    """
    files = files_of(path)
    _check_size(path, sum(file.stat().st_size for file in files))
    with ExitStack() as stack:
        with _naming_damage(path):
            kind = _format(files[0])
            shapes, read = _READERS[kind](files[0], stack)

        def guarded(name: str) -> np.ndarray:
            with _naming_damage(path):
                return read(name)

        yield Tensors(kind, shapes, guarded)


def files_of(path: str | Path) -> list[Path]:
    """The file, or all files of the V2 checkpoint that `path` is a prefix or a file of.

    Of a folder as Hugging Face has it, the file with the weights.

    Raises:
      WeightsError: when there is none.
    """
    path = Path(path).expanduser()
    path = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), path)
    prefix = _V2_FILES.sub("", str(path))
    if Path(f"{prefix}.index").is_file():
        parts = path.parent.glob(f"{glob.escape(Path(prefix).name)}.data-*")
        return [Path(f"{prefix}.index"), *sorted(parts)]
    if path.is_file():
        return [path]
    raise WeightsError(f"there is no file of weights {path}: give a file or a checkpoint's prefix")


def sha256(path: str | Path) -> str:
    """Of the file's content; of all files of a V2 checkpoint, one after the other."""
    digest = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def check_tensors(
    path: str | Path, found: Shapes, expected: Shapes, ours: Mapping[str, str] | None = None
) -> None:
    """Compares what a file holds with what it is to hold.

    Args:
      path: of the file.
      found: in the file, by name.
      expected: by the same names.
      ours: our name for each of these names, where it is another.

    Raises:
      WeightsError: that lists what is missing, left over or of another shape.
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


def _listed(problem: str, names: list[str], most: int = 20) -> str:
    more = f"\n  and {len(names) - most} more" if len(names) > most else ""
    lines = "".join(f"\n  {name}" for name in sorted(names)[:most])
    return f"{len(names)} {problem}:{lines}{more}"


@contextmanager
def _naming_damage(path: str | Path) -> Iterator[None]:
    """Libraries raise all sorts of things at files that are cut off, altered or made to harm."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"{path} cannot be read, it is damaged or no file of weights ({first}): get it again"
        ) from error


def _check_size(path: str | Path, size: int) -> None:
    if size > MAX_BYTES:
        raise WeightsError(
            f"{path} holds {size} bytes, and no Inception-v3 has more than {MAX_BYTES}: give a "
            "file of this network's weights"
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
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":  # a pickle, as before 1.6
        return "pytorch"
    if start[8:9] == b"{":
        return "safetensors"
    if end == _TENSORFLOW_TABLE:
        return "tensorflow"
    raise WeightsError(
        f"{path} is damaged or no file of weights that is known: it is to be .safetensors, .pth, "
        ".h5, .weights.h5, .keras or a TensorFlow checkpoint"
    )


def _open_safetensors(path: Path, stack: ExitStack) -> tuple[Shapes, Read]:
    import safetensors

    file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, file.get_tensor  # noqa: SIM118


def _open_pytorch(path: Path, stack: ExitStack) -> tuple[Shapes, Read]:
    try:
        return pth.open_pth(path)
    except pth.Refused as error:
        raise WeightsError(f"{path} {error}") from error


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

    # TensorFlow takes a checkpoint's path for a pattern, so it is given one without * ? [ \\.
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
