"""Finds published weights by name or address: on this machine, or downloaded once."""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from inception.data.paths import local_path
from inception.weights import cache, converted, hub, pretrained, registry, transport
from inception.weights.download import fetch
from inception.weights.files import MAX_BYTES, WeightsError, files_of
from inception.weights.importing import import_weights
from inception.weights.pretrained import Pretrained
from inception.weights.registry import Published


def named(path: str | os.PathLike) -> Published | None:
    """The published weights of a name or an address; None for a path. An existing path wins.

    Raises:
      WeightsError: For an address that is not complete.
    """
    text = os.fspath(path)
    published = registry.find(text)
    if published and text in (*registry.REGISTRY, *registry.ALIASES) and Path(text).exists():
        return None
    return published


def load(published: Published) -> Pretrained:
    """Published weights, imported.

    Raises:
      WeightsError: If it cannot be downloaded or read.
    """
    if not (key := _digest(published)):
        path = locate(published)
        if path.name == pretrained.WEIGHTS_FILE:  # our own format, in a repository
            return pretrained.load(path.parent)
        key = _digest(published)
    return converted.keep(key, _imported_as(published), lambda: _imported(published, key))


def _imported_as(published: Published) -> str:
    """The source, for the cache; "auto" plus a digest of the names by which it is recognized."""
    if published.source != "auto":
        return published.source
    names = published.repository or published.file
    return f"auto.{hashlib.sha256(names.encode()).hexdigest()[:8]}"


def _digest(published: Published) -> str:
    """The digest by which the imported weights are cached; "" if unknown or not cached."""
    if published.repository:
        snapshot = hub.known(published)
        return snapshot.sha256 if snapshot and snapshot.weights != pretrained.WEIGHTS_FILE else ""
    return cache.file_of(published).sha256


def _imported(published: Published, key: str) -> Pretrained:
    with opened(published) as path:
        loaded = import_weights(path, published.source)
    return dataclasses.replace(loaded, sha256=key) if published.member else loaded


@contextlib.contextmanager
def file_of(path: str, source: str = "auto") -> Iterator[tuple[str | Path, str]]:
    """The file at a path, or of a name or an address, and the source to import it as.

    Raises:
      UserError: For a path in a bucket.
      WeightsError: If it cannot be downloaded, or is a misspelled name; lists similar names.
    """
    published = named(path)
    if not published:
        yield _not_a_name(path), source
        return
    with opened(published) as file:
        yield file, published.source if source == "auto" else source


def _not_a_name(path: str) -> Path:
    """The path, unless it does not exist and looks like a misspelled name."""
    file = local_path(path)
    if not file.exists() and (near := registry.nearest(path)):
        try:
            files_of(file)  # it may be the prefix of a checkpoint
        except WeightsError as error:
            raise WeightsError(f"{error}, or a name such as {', '.join(near)}") from error
    return file


@contextlib.contextmanager
def opened(published: Published) -> Iterator[Path]:
    """The file of weights, as `import_weights` takes it; a checkpoint in an archive is unpacked.

    Raises:
      WeightsError: If it cannot be downloaded, or the archive does not have it.
    """
    path = locate(published)
    if not published.member:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="inception-") as scratch:
        yield _unpack(path, published.member, Path(scratch))


def locate(published: Published, refresh: bool = False) -> Path:
    """The file on this machine, checked; downloaded if it is not there.

    Args:
      published: The weights.
      refresh: Whether to ask the hub for a branch's newest commit, unless offline.

    Raises:
      WeightsError: If it cannot be downloaded.
    """
    if published.repository:
        again = refresh and not transport.offline()
        snapshot = (None if again else hub.known(published)) or hub.ask(published)
        if folder := hub.here(published, snapshot):
            return folder / snapshot.weights
        path = hub.download(published, snapshot) / snapshot.weights
    else:
        if found := where(published):
            return found
        alternative = f", or name its path instead of {published.name}"
        path = fetch(cache.file_of(published), "" if published.member else alternative)
    if published.license:
        cache.say(f"{published.name}'s license: {published.license} ({published.license_url})")
    return path


def where(published: Published) -> Path | None:
    """The file on this machine, checked, or None; no connection is made."""
    if published.repository:
        snapshot = hub.known(published)
        folder = snapshot and hub.here(published, snapshot)
        return folder / snapshot.weights if snapshot and folder else None
    file = cache.file_of(published)
    found = cache.find(file, tuple(cache.others(published)) if file.sha256 else ())
    if found and not file.sha256:
        with contextlib.suppress(OSError):
            cache.record(found, cache.digest(found))
            cache.say(f"{found} was put there by hand: its digest is kept, and checked from now on")
    return found


def _unpack(archive: Path, member: str, folder: Path) -> Path:
    """Unpacks the files of a checkpoint, and nothing else; returns its path or prefix.

    Raises:
      WeightsError: If there are none, or they are too large.
    """
    wanted = re.compile(re.escape(member) + r"(\.index|\.data-\d+-of-\d+)?")
    names, size = [], 0
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                name = PurePosixPath(entry.name).name
                names.append(name)
                stream = tar.extractfile(entry) if entry.isfile() else None
                if not wanted.fullmatch(name) or not stream:
                    continue
                if (size := size + entry.size) > MAX_BYTES:
                    raise WeightsError(f"{archive}: {name} has more than {MAX_BYTES:,} bytes")
                with (folder / name).open("wb") as output:
                    shutil.copyfileobj(stream, output)
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{archive} cannot be unpacked ({error}): get it again") from error
    if not size:
        raise WeightsError(f"{archive} does not hold {member}; it has {', '.join(names[:10])}")
    return folder / member
