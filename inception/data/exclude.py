"""Images that an evaluation leaves out, such as the challenge's blacklist of 1,762 (section 10).

The list is a text file with one image per line: a file's name, with or without its suffix, and with
its class's folder where several classes have files of that name; or a number n for ImageNet's n-th
validation image, ILSVRC2012_val_0000000n, as in the development kit's blacklist. Empty lines and
lines that begin with # are ignored. Accents may have either Unicode form (macOS's file names differ
from others').
"""

import unicodedata
from pathlib import Path, PurePosixPath

from inception.data import DataError
from inception.data.paths import local_path
from inception.data.sources import Source


class Excluded:
    """The names on a list; `name in excluded` takes the name that a source gives an image."""

    def __init__(self, file: str | Path):
        """Reads the list.

        Raises:
          DataError: If it cannot be read.
        """
        self._file = file
        try:
            text = unicodedata.normalize("NFC", local_path(file).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"list of excluded images {file} cannot be read: {error}") from error
        self._listed = {
            line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"
        }
        numbers = {
            f"ILSVRC2012_val_{int(s):08d}" for s in self._listed if s.isdecimal() and len(s) < 9
        }
        self._names = self._listed | numbers

    def __len__(self) -> int:
        return len(self._listed)

    def __contains__(self, name: str) -> bool:
        parts = PurePosixPath(unicodedata.normalize("NFC", name)).parts
        path = PurePosixPath(*parts[-2:])  # with its class's folder, if any
        forms = (path, path.parent / path.stem, path.name, path.stem)
        return not self._names.isdisjoint(map(str, forms))

    def check(self, source: Source) -> None:
        """Refuses a list that excludes nothing, rather than silently evaluate everything.

        Raises:
          DataError: With an example of the source's names.
        """
        if not any(source.name(index) in self for index in range(len(source))):
            raise DataError(
                f"list of excluded images {self._file}: none of its {len(self)} is in the data set."
                f" Images are named like {source.name(0)!r}"
            )
