"""A folder of images, read in place: `ROOT/train/<class>/*.JPEG` and `ROOT/val/<class>/*`.

The classes are the folders of ROOT/train in sorted order, for every split, so that a class has the
same number everywhere. Files are JPEG, PNG or WebP; names that begin with a dot are ignored.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from inception.data import DataError, DataNotFound
from inception.data.decode import BadImage, decode
from inception.errors import local_path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_THREADS = 32  # listing and checking wait for the disk, not for the processor
_TAIL = 4096  # bytes in which an image's end is looked for; where cameras write more, all is read
_LISTED = 20  # bad files that an error names


class FolderSource:
    """The images of one split's folder; items are `(encoded image, label)`."""

    label_width = 0

    def __init__(self, root: str | Path, split: str, *, on_bad_record: str = "fail"):
        """Lists the files of `root`/`split` and looks at the head and the tail of each.

        Args:
            root: the folder that holds the splits' folders.
            split: a folder's name; "validation" is also looked for as "val".
            on_bad_record: "fail" or "skip", which only logs files that cannot be images.

        Raises:
            DataNotFound: `root` or the split's folder is not there.
            DataError: no images, classes that the training folder lacks, or, in one list, all
                files that cannot be images.
        """
        self._root = _split_folder(local_path("data_dir", root, DataError), split)
        self.class_names = self._class_names()
        self.num_classes = len(self.class_names)
        with ThreadPoolExecutor(_THREADS) as pool:  # a class a task: a file is too small for one
            classes = list(pool.map(_scan_class, repeat(self._root), self.class_names))
        self._paths = [path for paths, _ in classes for path in paths]
        self._labels = [label for label, (paths, _) in enumerate(classes) for _ in paths]
        if not self._paths:
            raise DataError(f"{self._root}: its class folders hold no images")
        if self._root.name == "train" and len(set(self._labels)) < self.num_classes:
            empty = sorted(set(range(self.num_classes)) - set(self._labels))
            names = [self.class_names[label] for label in empty[:5]]
            raise DataError(f"{self._root}: {len(empty)} class folders are empty, as {names}")
        if bad := [problem for _, problems in classes for problem in problems]:
            self._report(bad, fail=on_bad_record == "fail")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        try:
            with open(self.describe(index), "rb") as file:  # noqa: PTH123 (a Path costs more)
                return file.read(), self._labels[index]
        except OSError as error:
            raise BadImage(f"the file cannot be read: {error.strerror}") from error

    def describe(self, index: int) -> str:
        """Returns the path of the image."""
        return f"{self._root}/{self._paths[index]}"

    def file_name(self, index: int) -> str:
        """Returns the file's name in its class's folder."""
        return self._paths[index]

    def _class_names(self) -> tuple[str, ...]:
        """Returns the training folder's classes, or this split's if there is no such folder."""
        own = _subfolders(self._root)
        train = self._root.parent / "train"
        if not train.is_dir():
            logging.info("%s is not there: the classes are those of %s", train, self._root)
            return own
        classes = _subfolders(train)
        if unknown := sorted(set(own) - set(classes)):
            raise DataError(
                f"{self._root} has {len(unknown)} class folders that {train} lacks, for example "
                f"{unknown[:5]}; every split needs the same classes"
            )
        return classes

    def _report(self, bad: list[str], *, fail: bool) -> None:
        more = [f"and {len(bad) - _LISTED} more"] if len(bad) > _LISTED else []
        message = "\n  ".join(
            [
                f"{len(bad)} of {len(self)} files in {self._root} cannot be images:",
                *bad[:_LISTED],
                *more,
            ]
        )
        if fail:
            advice = "Repair or remove them (on_bad_record='skip' is for images to train on)"
            raise DataError(f"{message}\n{advice}")
        logging.warning(message)


def printable(class_name: str) -> str:
    """A class's name as far as it is text: folders may be called anything."""
    return class_name.encode(errors="replace").decode()


def _split_folder(root: Path, split: str) -> Path:
    """Returns the folder of a split; "validation" may be called "val"."""
    names = ["validation", "val"] if split == "validation" else [split]
    if not split or Path(split).name != split or "[" in split:
        raise DataError(f"split {split!r} of a folder must be a folder's name, as 'train' or 'val'")
    for name in names:
        if (root / name).is_dir():
            return root / name
    problem = "is not there"
    if root.is_dir():
        found = ", ".join(_subfolders(root, required=False)) or "none"
        problem = f"has no folder {' or '.join(names)} (its folders: {found})"
    raise DataNotFound(
        f"{root} {problem}; a data set 'folder' needs images at DATA_DIR/train/<class>/ and "
        "DATA_DIR/val/<class>/"
    )


def _visible(folder: Path | str) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _subfolders(folder: Path, required: bool = True) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in _visible(folder) if entry.is_dir()))
    if required and not names:
        raise DataError(
            f"{folder} has no class folders; images belong in {folder}/<class>/, one folder a class"
        )
    return names


def _scan_class(root: Path, name: str) -> tuple[list[str], list[str]]:
    """Returns a class's files relative to `root`, sorted, and a line for each that is no image."""
    try:
        files = sorted(f"{name}/{entry.name}" for entry in _visible(f"{root}/{name}"))
    except FileNotFoundError:
        return [], []  # a class of which this split has no example
    checked = ((file, _problem(f"{root}/{file}")) for file in files)
    return files, [f"{file}: {problem}" for file, problem in checked if problem]


def _problem(path: str) -> str:
    """Returns why a file cannot be an image, or "" if it begins and ends like one."""
    if not path.lower().endswith(SUFFIXES):
        return f"not one of {', '.join(SUFFIXES)}"
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            head = os.pread(descriptor, 16, 0)
            size = os.fstat(descriptor).st_size
            tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.strerror or str(error)
    if not size:
        return "empty"
    if head.startswith(b"\xff\xd8\xff"):
        return "" if b"\xff\xd9" in tail or _decodes(path) else "JPEG without an end: truncated"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "" if b"IEND" in tail else "PNG without an end: truncated"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        whole = int.from_bytes(head[4:8], "little") + 8
        return "" if size >= whole else f"WebP of {whole} bytes, has {size}: truncated"
    return "neither JPEG nor PNG nor WebP"


def _decodes(path: str) -> bool:
    try:
        decode(Path(path).read_bytes())
    except BadImage:
        return False
    return True
