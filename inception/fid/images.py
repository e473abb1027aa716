"""Sets of images: a folder, a zip, an array in a file, or a prepared tfds data set.

Files and folders may be in a bucket (gs://...). Images are decoded by Pillow as in every tool,
`Image.open(file).convert("RGB")`: gray becomes three channels, alpha is dropped, a palette is
looked up, values of more than 8 bits are clipped to [0, 255] and the EXIF orientation is ignored.
A PNG's ancillary chunks (texts, color profiles, their checksums) change no pixel and are ignored.
"""

import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from inception.fid import bridge
from inception.fid.bridge import UserError, is_local

# The suffixes of pytorch-fid, here in upper case too.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LOSSY = ("JPEG", "MPO", "WEBP")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth")


class Picture(NamedTuple):
    """A decoded image.

    Attributes:
      pixels: uint8 [height, width, 3].
      format: Pillow's name of the file format; "" if it was not a file.
      is_deep: Whether it was 16-bit gray, 32-bit integers or floats; Pillow clips to [0, 255].
    """

    pixels: np.ndarray
    format: str
    is_deep: bool = False


@dataclass(frozen=True)
class Images:
    """A set of images that is listed and not decoded yet.

    Attributes:
      path: Path of the set.
      count: Number of images.
      items: Name of each image and a function that reads it, in the order of names; iterable once.
      check: Function that raises UserError if a file has changed since it was listed.
    """

    path: str
    count: int
    items: Iterable[tuple[str, Callable[[], Picture]]]
    check: Callable[[], None]


def open_images(path: str, *, recursive: bool = False, data_dir: str = "") -> Images:
    """Lists the images of a folder, FILE.zip, FILE.npz, FILE.npy or tfds:NAME:SPLIT.

    Args:
      path: Path on a disk or in a bucket, or a tfds data set.
      recursive: Whether to include images in subfolders.
      data_dir: Directory of tfds data sets; empty for tfds's default.

    Raises:
      UserError: If the set is missing, damaged, of another kind or empty.
    """
    if path.startswith("tfds:"):
        return _of_tfds(path, data_dir)
    if not path:
        raise UserError("a set of images has an empty path: give a folder or a file")
    place = epath.Path(path).expanduser()
    suffix = place.suffix.lower()
    if suffix in _PICKLES:
        raise UserError(
            f"{path} is a pickle, which can run code and is not read: convert it to .npz with mu "
            "and sigma, or with images (docs/fid.md)"
        )
    try:
        is_folder, exists = place.is_dir(), place.exists()
    except Exception as error:  # a bucket's client raises all kinds
        raise UserError(f"{path} cannot be opened: {first_line(error)}") from error
    if is_folder:
        found = _of_folder(path, place, recursive)
    elif not exists:
        raise UserError(f"{path} does not exist: give a folder, FILE.zip, FILE.npz or FILE.npy")
    elif suffix == ".zip":
        found = _of_zip(path, place)
    elif suffix in (".npz", ".npy"):
        found = _of_array(path, place)
    else:
        raise UserError(f"{path} is not a folder, FILE.zip, FILE.npz or FILE.npy")
    if not found.count:
        raise UserError(f"{path} has no images ({', '.join(SUFFIXES)})")
    return found


def first_line(error: Exception) -> str:
    """The first line of a library's error message."""
    return str(error).partition("\n")[0] or type(error).__name__


def decode(data: bytes) -> Picture:
    """Decodes a file as the tools do.

    Raises:
      ValueError: If the file is not an image, or is incomplete.
    """
    try:
        with Image.open(io.BytesIO(bridge.critical_chunks(data))) as image:
            is_deep = image.mode[0] in "IF"
            return Picture(np.asarray(image.convert("RGB")), image.format or "", is_deep)
    except Exception as error:  # Pillow's readers raise a dozen kinds, SyntaxError among them
        reason = str(error).partition(" <")[0]  # without the address of an object
        raise ValueError(f"not a whole image ({reason})") from error


def _of_folder(path: str, folder: epath.Path, recursive: bool) -> Images:
    search = partial(bridge.images_below, os.fspath(folder), suffixes=SUFFIXES)
    files = sorted(search(recursive=recursive))
    if not files and not recursive and any(search()):
        raise UserError(f"{path} has images in its subfolders only: add --recursive")
    items = [(file, partial(_read_file, file)) for file in files]
    return Images(path, len(files), items, _watch(files))


def _read_file(file: str) -> Picture:
    return decode(epath.Path(file).read_bytes())


def _of_zip(path: str, place: epath.Path) -> Images:
    try:
        archive = zipfile.ZipFile(place.open("rb"))  # open until the last image is read
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is damaged or not a zip file: {error}") from error
    names = sorted(
        name
        for name in archive.namelist()
        if name.lower().endswith(SUFFIXES)
        and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    )
    items = [(f"{path}/{name}", partial(_read_member, archive, name)) for name in names]
    return Images(path, len(names), items, _watch([os.fspath(place)]))


def _read_member(archive: zipfile.ZipFile, name: str) -> Picture:
    return decode(archive.read(name))


def image_array(names: Iterable[str]) -> str:
    """Name of an .npz file's array of images: arr_0, as in ADM's, or "images"; "" if absent."""
    return next((name for name in ("arr_0", "images") if name in names), "")


def _of_array(path: str, place: epath.Path) -> Images:
    """Lists the rows of an array, which are read one by one: memory does not grow with it."""

    def open_array() -> IO[bytes]:
        if place.suffix.lower() == ".npy":
            return place.open("rb")
        archive = zipfile.ZipFile(place.open("rb"))
        if name := image_array(file.removesuffix(".npy") for file in archive.namelist()):
            return archive.open(f"{name}.npy")
        found = [file.removesuffix(".npy") for file in archive.namelist()]
        raise UserError(f"{path} has no images in an array arr_0 or images; it has {found}")

    try:
        with open_array() as file:
            shape = _header(path, file)
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error

    def items() -> Iterator[tuple[str, Callable[[], Picture]]]:
        with open_array() as file:
            _header(path, file)
            size = int(np.prod(shape[1:]))
            for index in range(shape[0]):
                yield f"{path}[{index}]", partial(_row, file.read(size), shape[1:])

    return Images(path, shape[0], items(), _watch([os.fspath(place)]))


def _header(path: str, file: IO[bytes]) -> tuple[int, ...]:
    """Reads the header of a .npy file, up to the first image, and returns the array's shape."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"format {version} is unknown")
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise UserError(f"{path} holds Python objects, which are not read: save uint8 images")
    is_gray = len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
    if dtype != np.uint8 or is_fortran or not (is_gray or (len(shape) == 4 and shape[3] == 3)):
        raise UserError(
            f"{path} holds {dtype} {list(shape)}, and images must be uint8 [n, height, width, 3] "
            "in C order; fid.to_uint8 makes them from values in [-1, 1]"
        )
    return shape


def _row(data: bytes, shape: tuple[int, ...]) -> Picture:
    if len(data) < np.prod(shape):
        raise ValueError("the file ends before it")
    pixels = np.frombuffer(data, np.uint8).reshape(*shape[:2], -1)
    return Picture(np.broadcast_to(pixels, (*shape[:2], 3)), "")


def _of_tfds(path: str, data_dir: str) -> Images:
    _, _, rest = path.partition(":")
    name, colon, split = rest.partition(":")
    if not (name and colon and split):
        raise UserError(f"{path} must be tfds:NAME:SPLIT, such as tfds:cifar10:test")
    source = bridge.open_data_set(name, split, data_dir)

    def read(index: int) -> Picture:
        image, _ = source[index]
        return (
            _row(image.tobytes(), image.shape) if isinstance(image, np.ndarray) else decode(image)
        )

    items = ((f"{path}[{index}]", partial(read, index)) for index in range(len(source)))
    return Images(path, len(source), items, _watch([]))


def _watch(files: list[str]) -> Callable[[], None]:
    """Returns a function that raises UserError if a file on a disk has changed since this call."""
    before = {file: _state(file) for file in files if is_local(file)}

    def check() -> None:
        for file, state in before.items():
            if _state(file) != state:
                raise UserError(
                    f"{file} changed while it was read: run again when nothing writes there"
                )

    return check


def _state(file: str) -> Any:
    try:
        status = os.stat(file)  # noqa: PTH116 (a Path for each of a million files takes longer)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
