"""A folder of images, read in place: `ROOT/train/<class>/*.JPEG` and `ROOT/val/<class>/*`.

For every split the classes are the folders of ROOT/train in sorted order, so that a class has the
same number everywhere. Suffixes decide which files are images. Hidden files, file managers' own
files, and links to a folder above are ignored. ROOT may be in a bucket: anything that etils.epath
reads, such as gs://bucket/folder.
"""

import bisect
import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from etils import epath

from inception.data import DataError
from inception.data.decode import MAX_PIXELS, SUFFIXES, decode, is_whole_jpeg, read_file
from inception.data.paths import is_local

_THREADS = 32  # listing and checking wait for the disk, not for the processor
_HEAD = 2**15  # bytes that are searched for a JPEG's header
_TAIL = 4096  # bytes that are searched for an image's end; cameras may append data
# Besides names that begin with a dot: files of Windows, macOS, Synology and Linux.
_IGNORED = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("icon\r", "__macosx", "@eadir", "lost+found"),
}
_LAYOUT = ". A data set 'folder' needs images at DATA_DIR/train/<class>/ and DATA_DIR/val/<class>/"


class FolderSource:
    """The images of one split's folder; items are `(encoded image, label)`."""

    label_width = 0

    def __init__(self, root: str | Path, split: str, *, on_bad_record: str = "fail"):
        """Lists the files of `root`/`split`; none is opened.

        Args:
            root: Folder with a folder for each split.
            split: Name of the split's folder; "validation" may also be called "val".
            on_bad_record: "fail", or "skip": leave out, and log, files whose suffix is not an
                image's.

        Raises:
            DataError: For a missing folder, no images, images in deeper folders, classes that are
                missing from the training folder (or empty there), one folder under two names, or
                other files.
        """
        self._folder = folder = _split_folder(root, split)
        train, own = folder.parent / "train", _subfolders(folder)
        self.class_names = _subfolders(train) if train.is_dir() else own
        self.num_classes = len(self.class_names)
        _check_classes(folder, own, self.class_names)
        with ThreadPool(_THREADS) as pool:
            listed = pool.map(_entries, [f"{folder}/{name}" for name in own])
            pairs = zip(own, listed, strict=True)
            files = {f"{name}/{file}": found[file] for name, found in pairs for file in found}
            self._files = [file for file, is_image in files.items() if is_image]
            others = sorted(
                file
                for file, is_image in files.items()
                if not is_image
                and not _leads_up(f"{folder}/{file}", f"{folder}/{file.split('/')[0]}")
            )
            deeper = pool.map(_first_image, [f"{folder}/{name}" for name in others])
        if found := [*filter(None, deeper)]:
            raise DataError(
                f"{folder} has {len(found)} folders of images inside its class folders, e.g. with "
                f"{found[0]}. Move the images up to {folder}/<class>/ or, where the inner folders "
                "are the classes, move these"
            )
        if others:
            message = (
                f"{folder} contains {len(others)} files that are not images, e.g. {others[:5]}"
            )
            if on_bad_record == "fail":
                raise DataError(
                    f"{message}. Remove them; config.on_bad_record=skip leaves out those of the "
                    "training split only"
                )
            logging.warning("%s: they are left out", message)
        empty = sorted(set(own).difference(file.split("/")[0] for file in self._files))
        if not self._files:
            raise DataError(_no_images(folder, own))
        if empty and folder == train:
            raise DataError(
                f"{folder}: {len(empty)} class folders contain no images, e.g. {empty[:5]}"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return read_file(self.name(index)), self._label(self._files[index])

    def labels(self) -> np.ndarray:
        """Returns the labels of all images, int32 [n]; opens none."""
        return np.array([*map(self._label, self._files)], np.int32)

    def name(self, index: int) -> str:
        """Returns the path of the image."""
        return f"{self._folder}/{self._files[index]}"

    def _label(self, file: str) -> int:
        return bisect.bisect_left(self.class_names, file.split("/")[0])


def check_files(source: FolderSource, max_pixels: int = MAX_PIXELS) -> list[str]:
    """Checks every file: a JPEG by its header and end; others, and doubtful ones, are decoded.

    Returns:
        A line for each that cannot be decoded, with its path and the reason.
    """
    paths = map(source.name, range(len(source)))
    with ThreadPool(_THREADS) as pool:
        check = partial(_problem, max_pixels=max_pixels)
        return [*filter(None, pool.imap(check, paths, chunksize=256))]


def images_below(
    folder: str,
    seen: set[str] | None = None,
    *,
    suffixes: tuple[str, ...] = SUFFIXES,
    recursive: bool = True,
) -> Iterator[str]:
    """The paths of the images in a folder, in sorted order.

    Each real folder is searched once, whatever symbolic links lead to it, and none that contains
    `folder` itself.

    Args:
        folder: The folder, on a disk or in a bucket.
        seen: Real paths of folders that are not searched; those that are searched are added.
        suffixes: Lower-case suffixes of images.
        recursive: Whether to search subfolders, at any depth.
    """
    seen = set() if seen is None else seen

    def walk(path: str) -> Iterator[str]:
        if real_path(path) in seen:
            return
        seen.add(real_path(path))
        for name, is_image in _entries(path, suffixes).items():
            child = os.path.join(path, name).removeprefix("./")  # noqa: PTH118 (or a bucket's)
            if is_image:
                yield child
            elif recursive and _is_folder(child) and not _leads_up(child, folder):
                yield from walk(child)

    yield from walk(folder)


def real_path(path: str) -> str:
    """The path without symbolic links, of which buckets have none."""
    return os.path.realpath(path) if is_local(path) else path


def printable(class_name: str) -> str:
    """A class's name with "?" for bytes that are not text: folders may be called anything."""
    return class_name.encode(errors="replace").decode()


def _split_folder(root: str | Path, split: str) -> epath.Path:
    """Returns the folder of a split; "validation" may be called "val"."""
    if not split or Path(split).name != split or "[" in split:
        raise DataError(
            f"split {split!r} of a folder must be a folder's name, such as 'train' or 'val'"
        )
    names = ["validation", "val"] if split == "validation" else [split]
    try:
        parent = epath.Path(root).expanduser()
        found = _subfolders(parent) if str(root) and parent.is_dir() else ()
    except Exception as error:  # epath's, for xyz://, and whatever a bucket's package raises
        raise DataError(
            f"data_dir {root} cannot be opened ({error!r}). Mount it and give the folder"
        ) from error
    for name in names:
        if name in found:
            return parent / name
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    above = [parent.parent] if parent.name in ("train", "val", "validation") else []
    near = [*above, *(parent / name for name in found[:5])] if is_local(root) else []
    meant = [path for path in near if any(_is_folder(f"{path}/{name}") for name in names)]
    raise DataError(
        f"data_dir {str(root)!r} has no folder {' or '.join(names)}, only {list(found[:5])}{more}"
        + (f". Did you mean data_dir={meant[0]}?" if meant else _LAYOUT)
    )


def _check_classes(folder: epath.Path, own: Sequence[str], known: Sequence[str]) -> None:
    """Refuses classes that training does not have, and one folder under two names."""
    train, real = folder.parent / "train", {real_path(f"{folder}/{name}"): name for name in own}
    if len(real) < len(own):
        twice = next(name for name in own if name not in real.values())
        same = real[real_path(f"{folder}/{twice}")]
        raise DataError(
            f"{folder}: the class folders {twice!r} and {same!r} are one folder, by a link. "
            "Remove one of them: an image has one class"
        )
    # An accented letter is one character on most systems and two on macOS, and looks the same.
    alike = {unicodedata.normalize("NFC", name): name for name in known}
    for name in own:
        other = alike.get(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise DataError(
                f"{folder}: the class folders {name!a} and, in {train}, {other!a} look "
                "alike but differ in their Unicode form (NFC or NFD). Rename one of them"
            )
    if unknown := sorted(set(own) - set(known)):
        notes = [name for name in _names(str(folder)) if name.lower().endswith((".txt", ".csv"))]
        advice = f"; {folder}/{notes[0]} may list the class of each image" if notes else ""
        raise DataError(
            f"{folder} has {len(unknown)} class folders that {train} lacks, e.g. {unknown[:5]}. "
            f"Every split needs the same classes: images at {folder}/<class>/{advice}"
        )


def _no_images(folder: epath.Path, own: Sequence[str]) -> str:
    """Says what was searched and what was found instead of images."""
    direct = [name for name, is_image in _entries(str(folder)).items() if is_image]
    looked = f"{len(own)} folders in it" + (f", e.g. {own[0]!r}, have none" if own else "")
    outside = f"; {len(direct)} images are in no class folder, e.g. {direct[0]!r}" if direct else ""
    return (
        f"{folder} contains no images (.jpg, .png, ...) in class folders: {looked}{outside}. "
        f"Each image must be at {folder}/<class>/"
    )


def _first_image(path: str) -> str:
    """The first image in or below a folder; "" for an empty one, or a file."""
    return next(images_below(path), "") if _is_folder(path) else ""


def _subfolders(folder: epath.Path) -> tuple[str, ...]:
    paths = {name: f"{folder}/{name}" for name in _names(str(folder))}
    return tuple(
        name
        for name, path in paths.items()
        if _is_folder(path) and not _leads_up(path, str(folder))
    )


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) if is_local(path) else epath.Path(path).is_dir()  # noqa: PTH112


def _leads_up(path: str, folder: str) -> bool:
    """Whether a path is a link to the folder that it was found in, or to one that contains it."""
    if not (is_local(path) and os.path.islink(path)):  # noqa: PTH114
        return False
    return f"{real_path(folder)}/".startswith(f"{real_path(path).rstrip('/')}/")


def _names(folder: str) -> list[str]:
    """Returns the names in a folder, sorted, without hidden ones and file managers' own."""
    return list(_entries(folder))


def _entries(folder: str, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, bool]:
    """Returns whether each name that `_names` returns is an image's.

    A folder is not an image, whatever its name. In a bucket, where asking takes a request for each
    file, the suffix alone decides.
    """
    if is_local(folder):
        with os.scandir(folder) as entries:  # asks the disk again for links only
            found = {
                each.name: _is_folder(each.path) if each.is_symlink() else each.is_dir()
                for each in entries
            }
    else:
        found = {path.name: False for path in epath.Path(folder).iterdir()}
    return {
        name: name.lower().endswith(suffixes) and not found[name]
        for name in sorted(found)
        if not name.startswith(".") and name.lower() not in _IGNORED
    }


def _problem(path: str, max_pixels: int) -> str:
    """Why a file cannot be decoded, or ""."""
    try:
        with epath.Path(path).open("rb") as file:
            head = file.read(_HEAD)
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            tail = file.read()
        if not is_whole_jpeg(head, tail, max_pixels):
            decode(read_file(path), max_pixels=max_pixels)
    except (DataError, OSError, MemoryError) as error:
        return f"{path}: {error or 'too little memory to decode it'}"
    return ""
