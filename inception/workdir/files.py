"""The small files of a workdir, on a disk or in a bucket: text and JSON, whole or not at all."""

import json
import math
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from etils import epath
from etils.epath.gpath import PosixGPath

from inception.distributed.sharding import is_main_process
from inception.errors import UserError


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is on a disk, not in a bucket."""
    return "://" not in os.fspath(path)


def local_path(path: epath.PathLike) -> Path:
    """A path on a disk, with ~ expanded; also as the `type` of a command's argument.

    Raises:
      UserError: for an address, which would become a folder "gs:" here.
    """
    if not is_local(path):
        raise UserError(f"{path} is in a bucket, where only runs can be; name a path on a disk")
    return Path(path).expanduser()


class LiteralPath(PosixGPath):
    """A path that `glob` searches below, whatever characters the path itself has.

    etils.epath takes all of it for a pattern, so that nothing is found below "runs/lr=[0.1]".
    """

    def glob(self, pattern: str) -> Iterator["LiteralPath"]:
        """Finds what is called as `pattern` says, which may have * ? [ ] in its last part only."""
        folder, _, name = pattern.rpartition("/")
        inside = self / folder
        paths = inside.iterdir() if inside.is_dir() else iter(())
        return (path for path in paths if fnmatchcase(path.name, name))


def write_text(file: epath.PathLike, text: str) -> None:
    """Writes a file so that it is never half there.

    Raises:
      UserError: if it cannot be written.
    """
    file = epath.Path(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # On a disk under another name first; in a bucket an object appears when all of it is there.
        partial = file.with_suffix(".partial") if is_local(file) else file
        partial.write_text(text)
        if partial != file:
            partial.replace(file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}") from error


def write_json(file: epath.PathLike, content: Any) -> None:
    """Writes JSON for people and programs, from one process.

    Raises:
      UserError: if it cannot be written.
    """
    if is_main_process():
        write_text(file, as_json(content, indent=2) + "\n")


def read_json(file: epath.PathLike) -> Any:
    """The content of a JSON file; None if there is no such file.

    Raises:
      ValueError: if it is no JSON.
    """
    file = epath.Path(file)
    return json.loads(file.read_text()) if file.exists() else None


def as_json(content: Any, indent: int | None = None) -> str:
    """JSON as other programs read it, too: what is not finite is null, for JSON knows no NaN."""

    def finite(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: finite(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [finite(value) for value in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(finite(content), indent=indent, allow_nan=False)
