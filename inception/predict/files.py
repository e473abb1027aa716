"""The images of a command line (files and folders), and their way through a network."""

import sys
from collections.abc import Iterator, Sequence

from etils import epath
from tqdm import tqdm

from inception.data.decode import MAX_PIXELS
from inception.data.folder import images_below, real_path
from inception.errors import UserError
from inception.predict.predictor import Outputs, Predictor

MEMORY_ADVICE = "A smaller --batch_size or --max_pixels needs less"


def find_images(paths: Sequence[str]) -> list[str]:
    """The named files, and the images in the named folders at any depth, on a disk or in a bucket.

    In a folder the suffix decides what is an image, and hidden files are left out. Each real folder
    is searched once, see `images_below`, and each real file is returned once, by the first of the
    paths that lead to it.

    Raises:
      UserError: If a folder contains no images.
    """
    folders: set[str] = set()
    found: dict[str, str] = {}
    for path in paths:
        folder = epath.Path(path).expanduser()
        if not folder.is_dir():
            found.setdefault(real_path(str(folder)), path)
            continue
        if not any(images_below(str(folder))):
            raise UserError(f"folder {path} contains no images (.jpg, .png, ...)")
        for file in images_below(str(folder), folders):
            found.setdefault(real_path(file), file)
    return list(found.values())


def outputs(
    predictor: Predictor, files: Sequence[str], max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[list[str], Outputs]]:
    """Reads the files batch by batch, and shows images per second and the time left.

    A file that cannot be read, or has more than `max_pixels`, is reported and left out.

    Yields:
      The files of a batch that could be read, in order, and their outputs.
    """
    terminal = sys.stderr.isatty()
    pause = 1 if terminal else 60  # seconds; a log gets few lines
    bar = tqdm(total=len(files), unit=" images", delay=pause, mininterval=pause, leave=False)
    with bar as progress:

        def report(index: int, error: Exception) -> None:
            # tqdm's write() redraws the bar below the line.
            (progress.write if terminal else print)(f"error: {error}", file=sys.stderr)
            progress.update()

        for index, values in predictor.stream(files, max_pixels=max_pixels, on_error=report):
            yield [files[i] for i in index], values
            progress.update(len(index))


def check_some(read: int, files: Sequence[str]) -> None:
    """Says how many files could not be read.

    Raises:
      UserError: If none could.
    """
    if not read:
        raise UserError(f"none of {len(files):,} files could be read")
    if failed := len(files) - read:
        print(f"{failed:,} of {len(files):,} files could not be read", file=sys.stderr)
