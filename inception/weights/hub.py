"""Repositories on Hugging Face's hub: which files are needed, and their digests.

The hub states the commit of a revision and the digest of every file in it. Its answer is kept, so
that a repository that is on this machine needs no connection. Our cache has

hub/USER--REPO/REVISION.json   the commit that this revision was, and the digests of its files
hub/USER--REPO/COMMIT/FILE     the files
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from inception.weights import cache, transport
from inception.weights.cache import File
from inception.weights.download import DownloadError, fetch
from inception.weights.files import WeightsError
from inception.weights.pretrained import DESCRIPTION_FILE, WEIGHTS_FILE
from inception.weights.registry import Published

_PREFERRED = ("model.safetensors", "model.weights.h5", "pytorch_model.bin")
_DESCRIPTIONS = ("config.json", "metadata.json")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".h5", ".keras")
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Snapshot:
    """The weights in a revision of a repository.

    Attributes:
      commit: Commit, 40 hexadecimal digits.
      weights: Name of the file of weights.
      files: This file and those that describe it.
    """

    commit: str
    weights: str
    files: tuple[File, ...]

    @property
    def sha256(self) -> str:
        """One digest for all files."""
        parts = sorted(f"{file.path.name} {file.sha256 or file.git}" for file in self.files)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def known(published: Published) -> Snapshot | None:
    """The snapshot of a repository in our cache or that of Hugging Face's libraries, if any."""
    try:
        stated = json.loads(_record(published).read_text())
        return _snapshot(published, stated["commit"], stated["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _of_hugging_face(published)


def ask(published: Published) -> Snapshot:
    """The snapshot of a repository that the hub states now, which is kept.

    Raises:
      DownloadError: If it does not answer, or answers with another commit than the pinned one.
      WeightsError: If the repository has no weights.
    """
    repository, revision = published.repository, published.revision
    url = f"{transport.endpoint()}/api/models/{repository}/revision/{quote(revision, safe='')}"
    try:
        if variable := transport.offline():
            raise transport.GiveUp(f"is not contacted because {variable} is set")
        stated = transport.read_json(f"{url}?blobs=true")
        files = {file["rfilename"]: _digests(file) for file in stated["siblings"]}
        snapshot = _snapshot(published, stated["sha"], files)
    except (transport.GiveUp, KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = error if isinstance(error, transport.GiveUp) else "sends no list of files"
        raise DownloadError(
            f"{_described(published)} is not on this machine, and {url} {reason}. "
            f"To get it by hand, {by_hand(published)}"
        ) from error
    _keep(
        published,
        snapshot.commit,
        {file.path.name: files[file.path.name] for file in snapshot.files},
    )
    return snapshot


def here(published: Published, snapshot: Snapshot) -> Path | None:
    """The folder that has all files of a snapshot, checked, if there is one."""
    folder = _folder(published) / snapshot.commit
    theirs = _theirs(published)
    for place in (folder, theirs and theirs / "snapshots" / snapshot.commit):
        if place and place.is_dir() and all(_has(place, file) for file in snapshot.files):
            return place
    return None


def download(published: Published, snapshot: Snapshot) -> Path:
    """Downloads what is missing of a snapshot; returns its folder in our cache.

    A file of another commit in Hugging Face's cache is linked if its digest is the same.

    Raises:
      DownloadError: If it cannot.
    """
    theirs = _theirs(published)
    for file in snapshot.files:
        if cache.find(file):
            continue
        blob = theirs and theirs / "blobs" / (file.sha256 or file.git)
        if not (blob and cache.find(dataclasses.replace(file, path=blob)) and _link(file, blob)):
            fetch(file, f", or {by_hand(published)}")
    return _folder(published) / snapshot.commit


def _link(file: File, blob: Path) -> bool:
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        if file.path.is_symlink():  # to a file that no longer exists
            file.path.unlink()
        file.path.symlink_to(blob)
    except OSError:
        return False
    return True


def _described(published: Published) -> str:
    """The name, with the file and its digest as far as they are known without the hub."""
    digest = published.sha256 and f"sha256 {published.sha256}"
    known = ", ".join(filter(None, (published.file, digest)))
    return f"{published.name} ({known})" if known else published.name


def by_hand(published: Published) -> str:
    """Advice for when nothing can be downloaded."""
    return f"put the files of {address(published)} into a folder, and name its path instead"


def address(published: Published) -> str:
    """The address of a repository's page."""
    return f"{transport.endpoint()}/{published.repository}/tree/{published.revision}"


def _has(folder: Path, file: File) -> bool:
    path = folder / file.path.name
    if path.is_file():
        if not (problem := cache.mismatch(path, file)):
            return True
        cache.say(f"{path} is not used: {problem}")
    return False


def _folder(published: Published) -> Path:
    return cache.folder() / "hub" / published.repository.replace("/", "--")


def _record(published: Published) -> Path:
    return _folder(published) / f"{quote(published.revision, safe='')}.json"


def _keep(published: Published, commit: str, files: Mapping[str, Any]) -> None:
    record = _record(published)
    scratch = record.with_name(f"{record.name}.{uuid.uuid4().hex}.part")  # others may write it too
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps({"commit": commit, "files": files}, indent=2) + "\n")
        scratch.replace(record)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise DownloadError(
            f"{_described(published)} cannot be kept in {record.parent}: {error.strerror}. Make "
            f"room there, set {cache.VARIABLE} to another folder, or {by_hand(published)}"
        ) from error


def _snapshot(
    published: Published, commit: str, stated: Mapping[str, Mapping[str, Any]]
) -> Snapshot:
    """The files that are needed, each with a digest.

    Raises:
      WeightsError: If there are no weights, their digest is not the published one, or the commit
        is not the one that the revision pins.
      ValueError: If a commit or digest is malformed.
    """
    if not _SHA1.fullmatch(commit):
        raise ValueError(commit)
    pinned = published.revision.lower()
    if _SHA1.fullmatch(pinned) and commit != pinned:
        raise DownloadError(
            f"{_described(published)} is pinned to commit {pinned}, but {transport.endpoint()} "
            f"answers with commit {commit}. Check HF_ENDPOINT, or {by_hand(published)}"
        )
    weights = _choose(published, stated)
    descriptions = (DESCRIPTION_FILE,) if weights == WEIGHTS_FILE else _DESCRIPTIONS
    names = [weights, *(name for name in descriptions if name in stated)]
    address = f"{transport.endpoint()}/{published.repository}/resolve/{commit}"
    folder = _folder(published) / commit
    files = [File(folder / name, (f"{address}/{quote(name)}",), **stated[name]) for name in names]
    for file in files:
        if not (_SHA256.fullmatch(file.sha256) or _SHA1.fullmatch(file.git)):
            raise ValueError(f"no digest of {file.path.name}")
    if published.sha256 and files[0].sha256 != published.sha256:
        raise WeightsError(
            f"{published.name}: {weights} at {commit} has sha256 {files[0].sha256}, and the "
            f"published one has {published.sha256}. Take it as {published.repository}@{commit}, "
            "with hf-hub: before it, if this is what you want"
        )
    return Snapshot(commit, weights, tuple(files))


def _choose(published: Published, names: Collection[str]) -> str:
    if {WEIGHTS_FILE, DESCRIPTION_FILE} <= set(names):
        return WEIGHTS_FILE
    if found := [name for name in _PREFERRED if name in names]:
        return found[0]
    found = sorted(name for name in names if name.endswith(_SUFFIXES) and "/" not in name)
    if len(found) == 1:
        return found[0]
    some = f"several files of weights, {', '.join(found[:5])}" if found else "no file of weights"
    raise WeightsError(
        f"{published.name} has {some}: it must have {', '.join(_PREFERRED)} or a single one. Name "
        "a file's own address, https://.../resolve/main/FILE#sha256=DIGEST"
    )


def _digests(file: Mapping[str, Any]) -> dict[str, Any]:
    """Size and digest as the hub states them: SHA-256 of large files, git's SHA-1 of small ones."""
    large = file.get("lfs") or {}
    if large:
        return {"size": large["size"], "sha256": large["sha256"]}
    return {"size": file.get("size") or 0, "git": file["blobId"]}


def _theirs(published: Published) -> Path | None:
    root = cache.hugging_face()
    return root and root / f"models--{published.repository.replace('/', '--')}"


def _of_hugging_face(published: Published) -> Snapshot | None:
    """The snapshot in Hugging Face's cache, whose files are links to files named by digests."""
    if not (root := _theirs(published)):
        return None
    try:
        revision = published.revision
        pinned = _SHA1.fullmatch(revision)
        commit = revision if pinned else (root / "refs" / revision).read_text().strip()
        names = {path.name: path.resolve() for path in (root / "snapshots" / commit).iterdir()}
        stated = {
            name: {"sha256" if _SHA256.fullmatch(blob.name) else "git": blob.name}
            for name, blob in names.items()
            if blob.is_file()
        }
        return _snapshot(published, commit, stated)
    except (OSError, ValueError):
        return None
