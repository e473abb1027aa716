"""Paths on a disk, and addresses in a bucket."""

import os
import re
from pathlib import Path

from inception.errors import UserError

# Also with one slash, which is what pathlib makes of gs://BUCKET/FILE.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether a path is on a disk rather than in a bucket."""
    return not _ADDRESS.match(os.fspath(path))


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path on a disk, with ~ expanded; also the `type` of a command's argument.

    Raises:
      UserError: For an address in a bucket, which would become a local folder "gs:".
    """
    if not is_local(path):
        raise UserError(f"{path} is in a bucket, which only runs support; use a path on a disk")
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib fails if ~NAME is nobody)
