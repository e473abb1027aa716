"""The files of weights on this machine: in our cache, or in those of other libraries.

A file is identified by its digest, never by its name alone. The caches of PyTorch's hub, Hugging
Face and Keras are read and never written to. Ours is INCEPTION_CACHE, or inception/ in
XDG_CACHE_HOME or ~/.cache:

weights/SHA256[:16]-FILE          a file whose digest is published
weights/FILE, weights/FILE.sha256 one whose digest nobody has published, and what it was at first
weights/SHA256[:16]-SOURCE-CODE/  the same weights as our network's (converted.py)
hub/USER--REPO/                   repositories of the hub (hub.py)
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inception.data.paths import is_local
from inception.weights.files import WeightsError
from inception.weights.registry import Published

VARIABLE = "INCEPTION_CACHE"


@dataclass(frozen=True)
class File:
    """A file in our cache, and what its content must be.

    Attributes:
      path: Path in our cache.
      urls: Addresses, tried in this order.
      size: Number of bytes; 0 if unknown.
      sha256: SHA-256 in hexadecimal, "" if unknown.
      md5: MD5 in hexadecimal, "" if unknown.
      git: SHA-1 that git, and so the hub, identifies a small file by; "" if unknown.
    """

    path: Path
    urls: tuple[str, ...] = ()
    size: int = 0
    sha256: str = ""
    md5: str = ""
    git: str = ""


def folder() -> Path:
    """Our cache.

    Raises:
      WeightsError: If no variable says where it is, or it is in a bucket.
    """
    if not is_local(os.environ.get(VARIABLE, "")):
        raise WeightsError(
            f"{VARIABLE}={os.environ[VARIABLE]} is not a folder of this machine: name one, or "
            "mount the bucket"
        )
    if ours := named(VARIABLE) or _below(_cache_home(), "inception"):
        return ours.absolute()
    raise WeightsError(f"this user has no home folder to keep weights in: set {VARIABLE}=FOLDER")


def named(variable: str) -> Path | None:
    """The folder that an environment variable names, if it does."""
    folder = os.environ.get(variable)
    return Path(os.path.expandvars(folder)).expanduser() if folder else None


def _cache_home() -> Path | None:
    return named("XDG_CACHE_HOME") or _below(_home(), ".cache")


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and the system does not know the user, as in some containers
        return None


def _below(folder: Path | None, *parts: str) -> Path | None:
    return folder and folder.joinpath(*parts)


def file_of(published: Published) -> File:
    """The file of published weights that are not a repository, with its digest if it is known."""
    prefix = f"{published.sha256[:16]}-" if published.sha256 else ""
    path = folder() / "weights" / f"{prefix}{published.file}"
    sha256 = published.sha256 or recorded(path)
    return File(path, published.urls, published.size, sha256, published.md5)


def recorded(path: Path) -> str:
    """The SHA-256 that `record` wrote for a file, in sha256sum's format; "" if there is none."""
    try:
        return _record(path).read_text().split()[0]
    except (OSError, ValueError, IndexError):
        return ""


def record(path: Path, sha256: str) -> None:
    """Writes a file's SHA-256 next to it, so that a later change is noticed."""
    _record(path).write_text(f"{sha256}  {path.name}\n")


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def find(file: File, elsewhere: Iterator[Path] | tuple[Path, ...] = ()) -> Path | None:
    """The file in our cache or elsewhere; one with its name but other content is reported."""
    for path in (file.path, *elsewhere):
        if path.is_file():
            if not (problem := mismatch(path, file)):
                return path
            say(f"{path} is not used: {problem}")
    return None


def mismatch(path: Path, file: File) -> str:
    """How a file on the disk differs from what it must be; "" if it does not."""
    size = path.stat().st_size
    if file.size and size != file.size:
        return f"it has {size:,} bytes, not {file.size:,}"
    for kind in ("sha256", "md5", "git"):
        expected = getattr(file, kind)
        if expected and (found := digest(path, kind)) != expected:
            return f"its {kind} is {found}, not {expected}"
    return ""


def digest(path: Path, kind: str = "sha256") -> str:
    """The digest of a file's content; `kind` is "sha256", "md5" or "git" (a blob's SHA-1)."""
    hashed = hashlib.new("sha1" if kind == "git" else kind, usedforsecurity=kind == "sha256")
    if kind == "git":
        hashed.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def others(published: Published) -> Iterator[Path]:
    """The paths of a file in the caches of PyTorch's hub and Keras."""
    torch = named("TORCH_HOME") or _below(_cache_home(), "torch")
    keras = named("KERAS_HOME") or _below(_home(), ".keras")
    for place in (_below(torch, "hub", "checkpoints"), _below(keras, "models")):
        if place:
            yield from (place / name for name in published.file_names)


def hugging_face() -> Path | None:
    """The folder in which Hugging Face's libraries keep repositories."""
    hub = named("HF_HUB_CACHE") or named("HUGGINGFACE_HUB_CACHE") or _below(named("HF_HOME"), "hub")
    return hub or _below(_cache_home(), "huggingface", "hub")


def say(line: str) -> None:
    """Prints a message to stderr; stdout is for what was asked for."""
    print(line, file=sys.stderr, flush=True)
