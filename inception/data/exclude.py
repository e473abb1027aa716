"""Images that an evaluation leaves out, such as the 1,762 of the challenge's blacklist (section 9).

The list is a text file with one image per line: a file's name, with or without its suffix, and with
its class's folder where several classes have files of that name; or a number n, which is ImageNet's
n-th validation image, ILSVRC2012_val_0000000n. That is how the development kit writes its
blacklist. Empty lines and those that begin with # mean nothing. Accents may be written in either
Unicode form (macOS's file names differ from others').
"""

import unicodedata
from pathlib import Path, PurePosixPath

from inception.data import DataError
from inception.data.sources import Source


class Excluded:
    """The names on a list; `name in excluded` asks for what a source calls an image.

    Raises:
      DataError: if the list cannot be read.
    """

    def __init__(self, file: str | Path):
        self._file = file
        try:
            text = unicodedata.normalize("NFC", Path(file).expanduser().read_text())
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
        path = PurePosixPath(*parts[-2:])  # in its class's folder, if it has one
        forms = (path, path.parent / path.stem, path.name, path.stem)
        return not self._names.isdisjoint(map(str, forms))

    def check(self, source: Source) -> None:
        """Refuses a list that leaves out nothing, rather than evaluate silently on everything.

        Raises:
          DataError: saying what the source's images are called.
        """
        if not any(source.name(index) in self for index in range(len(source))):
            raise DataError(
                f"list of excluded images {self._file}: none of its {len(self)} is evaluated. The "
                f"{len(source)} images of the data set are called as {source.name(0)!r} is"
            )
