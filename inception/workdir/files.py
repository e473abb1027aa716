"""Files that are written completely or not at all, on a disk or in a bucket: text, JSON, any."""

import contextlib
import json
import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from etils import epath
from etils.epath.gpath import PosixGPath

from inception.data.paths import is_local
from inception.distributed.sharding import is_main_process
from inception.errors import UserError


class LiteralPath(PosixGPath):
    """A path whose own characters are not part of the pattern when `glob` searches below it.

    etils.epath treats the whole path as a pattern, and finds nothing below "runs/lr=[0.1]".
    """

    def glob(self, pattern: str) -> Iterator["LiteralPath"]:
        """Finds paths that match `pattern`, which may have * ? [ ] in its last part only."""
        folder, _, name = pattern.rpartition("/")
        inside = self / folder
        paths = inside.iterdir() if inside.is_dir() else iter(())
        return (path for path in paths if fnmatchcase(path.name, name))


def write_text(file: epath.PathLike, text: str) -> None:
    """Writes a text file in UTF-8 as `write_bytes` does."""
    write_bytes(file, text.encode())


def write_bytes(file: epath.PathLike, content: bytes) -> None:
    """Writes a file so that it is never incomplete.

    Raises:
      UserError: If it cannot be written.
    """
    file = epath.Path(file)
    # A disk needs another name first; in a bucket an object appears when it is complete.
    partial = file.with_suffix(".partial") if is_local(file) else file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        if partial != file:
            partial.replace(file)
    except OSError as error:
        if partial != file:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        raise UserError(f"{file} cannot be written: {error}") from error


def write_json(file: epath.PathLike, content: Any) -> None:
    """Writes indented JSON, from process 0.

    Raises:
      UserError: If it cannot be written.
    """
    if is_main_process():
        write_text(file, as_json(content, indent=2) + "\n")


def read_json(file: epath.PathLike) -> Any:
    """The content of a JSON file; None if the file does not exist.

    Raises:
      ValueError: If it is not JSON.
    """
    file = epath.Path(file)
    return json.loads(file.read_text()) if file.exists() else None


def as_json(content: Any, indent: int | None = None) -> str:
    """Standard JSON, which has no NaN: numbers that are not finite become null."""

    def finite(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: finite(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [finite(value) for value in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(content), indent=indent, allow_nan=False)
