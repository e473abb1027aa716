"""Images that a command names, files and folders, through a network in batches, with progress."""

import sys
from collections.abc import Iterator, Sequence

from etils import epath
from tqdm import tqdm

from inception.data.folder import SUFFIXES
from inception.errors import UserError
from inception.predictor import Outputs, Predictor


def find_images(paths: Sequence[str]) -> list[str]:
    """The files that are named, and those below the folders that are, on a disk or in a bucket.

    In a folder the suffix decides what is an image, and what begins with a dot is left out.

    Raises:
      UserError: if a folder holds none.
    """
    found = []
    for path in paths:
        folder = epath.Path(path).expanduser()
        below = list(_below(folder)) if folder.is_dir() else [path]
        if not below:
            raise UserError(f"folder {path} holds no images ({', '.join(SUFFIXES)})")
        found += below
    return found


def _below(folder: epath.Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.name.lower().endswith(SUFFIXES):
            yield str(path)
        elif path.is_dir():
            yield from _below(path)


def outputs(predictor: Predictor, files: Sequence[str]) -> Iterator[tuple[list[str], Outputs]]:
    """Reads the files batch by batch and shows images per second and the time left.

    A file that cannot be read is reported, and the others go on.

    Yields:
      The files of a batch that could be read, in order, and their outputs.
    """
    terminal = sys.stderr.isatty()
    pause = 1 if terminal else 60  # seconds; a log is not filled with it
    bar = tqdm(total=len(files), unit=" images", delay=pause, mininterval=pause, leave=False)
    with bar as progress:

        def report(index: int, error: Exception) -> None:
            # write() draws the bar anew below the line.
            (progress.write if terminal else print)(f"error: {error}", file=sys.stderr)
            progress.update()

        for index, values in predictor.stream(files, on_error=report):
            yield [files[i] for i in index], values
            progress.update(len(index))


def check_some(read: int, files: Sequence[str]) -> None:
    """Says how many files could not be read.

    Raises:
      UserError: if none could.
    """
    if not read:
        raise UserError(f"none of {len(files):,} files could be read")
    if failed := len(files) - read:
        print(f"{failed:,} of {len(files):,} files could not be read", file=sys.stderr)
