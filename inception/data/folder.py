"""A folder of images, read in place: `ROOT/train/<class>/*.JPEG` and `ROOT/val/<class>/*`.

The classes are the folders of ROOT/train in sorted order, for every split, so that a class has the
same number everywhere. Files are JPEG, PNG or WebP; names that begin with a dot are ignored. ROOT
may lie in a bucket: anything that etils.epath reads, as gs://bucket/folder.
"""

import bisect
import logging
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from etils import epath

from inception.data import DataError
from inception.data.decode import BadImage, decode, read_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_THREADS = 32  # listing and checking wait for the disk, not for the processor
_TAIL = 4096  # bytes in which an image's end is looked for; cameras may write more behind it
_MARKS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}


class FolderSource:
    """The images of one split's folder; items are `(encoded image, label)`."""

    label_width = 0

    def __init__(self, root: str | Path, split: str, *, on_bad_record: str = "fail"):
        """Lists the files of `root`/`split`; none is opened.

        Args:
            root: the folder that holds the splits' folders.
            split: a folder's name; "validation" is also looked for as "val".
            on_bad_record: "fail", or "skip": leave out, and log, files whose suffix is no image's.

        Raises:
            DataError: a folder that is not there, no images, classes that the training folder
                lacks (or, in itself, has no images of), or other files.
        """
        self._folder = folder = _split_folder(root, split)
        train, own = folder.parent / "train", _subfolders(folder)
        self.class_names = _subfolders(train) if train.is_dir() else own
        self.num_classes = len(self.class_names)
        if unknown := sorted(set(own) - set(self.class_names)):
            raise DataError(
                f"{folder} has {len(unknown)} class folders that {train} lacks, as {unknown[:5]}. "
                "Every split needs the same classes"
            )
        with ThreadPool(_THREADS) as pool:
            listed = pool.map(_names, [f"{folder}/{name}" for name in own])
        files = [f"{own[i]}/{file}" for i, names in enumerate(listed) for file in names]
        self._files = [file for file in files if file.lower().endswith(SUFFIXES)]
        if others := sorted(set(files).difference(self._files)):
            message = f"{folder} holds {len(others)} files that are no images, as {others[:5]}"
            if on_bad_record == "fail":
                raise DataError(f"{message}. Remove them, or train with on_bad_record='skip'")
            logging.warning("%s: they are left out", message)
        if not self._files:
            raise DataError(f"{folder} holds no images ({', '.join(SUFFIXES)}) in class folders")
        empty = sorted(set(own).difference(file.split("/")[0] for file in self._files))
        if empty and folder == train:
            raise DataError(f"{folder}: {len(empty)} class folders hold no images, as {empty[:5]}")

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


def check_files(source: FolderSource) -> list[str]:
    """Looks at the head and the tail of every file.

    Returns:
        A line for each that is no whole image: its path and what is wrong with it.
    """
    paths = map(source.name, range(len(source)))
    with ThreadPool(_THREADS) as pool:
        return [*filter(None, pool.imap(_problem, paths, chunksize=256))]


def printable(class_name: str) -> str:
    """A class's name as far as it is text: folders may be called anything."""
    return class_name.encode(errors="replace").decode()


def _split_folder(root: str | Path, split: str) -> epath.Path:
    """Returns the folder of a split; "validation" may be called "val"."""
    if not split or Path(split).name != split or "[" in split:
        raise DataError(f"split {split!r} of a folder must be a folder's name, as 'train' or 'val'")
    names = ["validation", "val"] if split == "validation" else [split]
    try:
        parent = epath.Path(root).expanduser()
        found = _subfolders(parent) if str(root) and parent.is_dir() else ()
    except Exception as error:  # epath's, of xyz://, and whatever a bucket's package raises
        raise DataError(
            f"data_dir {root} cannot be opened ({error!r}). Mount it and give the folder"
        ) from error
    for name in names:
        if name in found:
            return parent / name
    raise DataError(
        f"data_dir {str(root)!r} has no folder {' or '.join(names)}, only {list(found)}. A data "
        "set 'folder' needs images at DATA_DIR/train/<class>/ and DATA_DIR/val/<class>/"
    )


def _subfolders(folder: epath.Path) -> tuple[str, ...]:
    return tuple(name for name in _names(str(folder)) if (folder / name).is_dir())


def _names(folder: str) -> list[str]:
    """Returns what a folder holds, sorted, but what is hidden."""
    if "://" in folder:
        names = [path.name for path in epath.Path(folder).iterdir()]
    else:
        names = os.listdir(folder)  # noqa: PTH208 (Paths of a million files take ten times as long)
    return sorted(name for name in names if not name.startswith("."))


def _problem(path: str) -> str:
    """Says why a file is no image, or ""; decodes those that do not begin and end like one."""
    try:
        with epath.Path(path).open("rb") as file:
            head = file.read(16)
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            tail = file.read()
        if not any(head.startswith(start) and end in tail for start, end in _MARKS.items()):
            decode(read_file(path))
    except (BadImage, OSError) as error:
        return f"{path}: {error}"
    return ""
