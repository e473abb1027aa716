"""One file from the first address that sends it whole: checked, resumed, by one process at once.

What arrives is written to a file of another name, and becomes the wanted file when its digest is
right. A connection that is cut goes on where it stopped, also in the next run.
"""

import base64
import contextlib
import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
from tqdm import tqdm

from inception.weights import cache
from inception.weights.cache import File, say
from inception.weights.files import MAX_BYTES, WeightsError
from inception.weights.transport import GiveUp, TryAgain, offline, opened, pieces, retried

MIRROR = "INCEPTION_MIRROR"  # URL of a folder that is tried before a file's own addresses


class DownloadError(WeightsError):
    """A file that could not be downloaded; the message says how to get it by hand."""


def fetch(file: File, by_hand: str = "") -> Path:
    """Downloads a file into our cache, unless another process is doing so or has done so.

    Args:
      file: The file, with what its content must be.
      by_hand: Advice for the message if it cannot be downloaded.

    Raises:
      DownloadError: If it cannot be downloaded; names file, digest, addresses, what each answered,
        and where to put the file.
    """
    if variable := offline():
        raise _failure(file, f"{variable} is set", by_hand)
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{file.path}.lock")
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            say(f"waiting for another process that downloads {file.path.name}")
            held = lock.acquire()
    except OSError as error:
        raise _unwritable(file, error, by_hand) from error
    with held:
        return _here(file) or _download(file, by_hand)


def _here(file: File) -> Path | None:
    """The file, if another process has just finished it; what is damaged is set aside."""
    if not file.path.is_file():
        return None
    if not (problem := cache.mismatch(file.path, file)):
        return file.path
    damaged = file.path.with_name(f"{file.path.name}.damaged")
    file.path.replace(damaged)
    say(f"{file.path} is damaged ({problem}): moved to {damaged.name}, and downloaded again")
    return None


def _download(file: File, by_hand: str) -> Path:
    # Where a network's file system only pretends to lock, hosts at least do not mix their pieces.
    part = file.path.with_name(f"{file.path.name}.{socket.gethostname()}.part")
    trouble = []
    for url in _addresses(file):
        say(f"downloading {url}")
        try:
            _complete(part, url, file)
            _keep(part, file)
        except GiveUp as reason:
            trouble.append(f"{url} {reason}")
        except OSError as error:
            _forget(part)
            raise _unwritable(file, error, by_hand) from error
        else:
            say(f"saved as {file.path}")
            return file.path
    raise _failure(file, "no address sends it", by_hand, trouble)


def _addresses(file: File) -> Iterator[str]:
    if mirror := os.environ.get(MIRROR):
        yield f"{mirror.rstrip('/')}/{urlsplit(file.urls[0]).path.rpartition('/')[2]}"
    yield from file.urls


def _complete(part: Path, url: str, file: File) -> None:
    """Makes `part` the whole file, from one address.

    Raises:
      GiveUp: If the address does not send it.
      OSError: If it cannot be written.
    """
    fresh = not part.exists()
    retried(lambda: _receive(part, url, file), lambda: _size(part))
    if problem := cache.mismatch(part, file):
        _forget(part)
        if fresh:
            raise GiveUp(f"sends another file: {problem}")
        _complete(part, url, file)  # what was there before may have been the damage


def _receive(part: Path, url: str, file: File) -> None:
    """Appends to `part` what is missing, or begins again where the server cannot go on.

    Raises:
      TryAgain, GiveUp: If it cannot go on; `TryAgain` if another try may help.
      OSError: If it cannot be written.
    """
    have = _kept(part, url, file)
    headers = {"Accept-Encoding": "identity"}  # or the length would be another
    if have:
        validator = _validator(part, url)
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    with opened(url, headers) as answer:
        if answer.status_code == 416:
            _forget(part)
            raise TryAgain(f"has nothing after {have:,} bytes")
        start, end = _extent(answer, have, file)
        _check_room(part, max(end - start, 0))
        _remember(part, url, answer.headers)
        with part.open("ab" if start else "wb") as stream, _progress(file, start, end) as bar:
            for piece in pieces(answer):
                stream.write(piece)
                bar.update(len(piece))
                if stream.tell() > (end or MAX_BYTES):
                    break
    if (size := _size(part)) > (end or MAX_BYTES):
        _forget(part)
        limit = f"the {end:,} bytes that it announces" if end else f"{MAX_BYTES:,} bytes"
        raise GiveUp(f"sends more than {limit}")
    if size < end:
        raise TryAgain(f"the connection was cut after {size:,} of {end:,} bytes")
    if not file.sha256:
        _check_google(part, answer.headers.get("x-goog-hash", ""))


def _kept(part: Path, url: str, file: File) -> int:
    """The number of bytes of `part` to keep: all if a digest or the server will reveal an error."""
    have = _size(part)
    if have and have < (file.size or MAX_BYTES) and (file.sha256 or _validator(part, url)):
        return have
    _forget(part)
    return 0


def _extent(answer: Any, have: int, file: File) -> tuple[int, int]:
    """The positions in the file where the answer begins and ends, checked before it is written.

    The end is 0 where neither the server nor we know it, and a digest will tell.
    """
    length, kind = (answer.headers.get(name, "") for name in ("Content-Length", "Content-Type"))
    start = have if answer.status_code == 206 else 0
    if answer.status_code == 206:
        got = answer.headers.get("Content-Range", "")
        if not got.startswith(f"bytes {have}-"):
            raise GiveUp(f"sends {got or 'nothing known'} when asked for bytes {have}-")
    end = start + int(length) if length.isdecimal() else file.size
    expected = file.size
    page = "a page of the network's, which may want a login or a proxy"
    if expected and end != expected:
        raise GiveUp(f"announces {end:,} bytes ({kind}), not {expected:,}: another file, or {page}")
    if not expected and kind.startswith("text/html"):
        raise GiveUp(f"sends {kind}: {page}")
    if not length and not expected:
        if not (file.sha256 or file.md5 or file.git):
            raise GiveUp("does not say how long the file is, and no digest of it is known")
        return start, 0
    if not 0 < end <= MAX_BYTES:
        raise GiveUp(f"announces {end:,} bytes: no file of weights, or more than {MAX_BYTES:,}")
    return start, end


def _check_room(part: Path, needed: int) -> None:
    if (free := shutil.disk_usage(part.parent).free) < needed:
        raise OSError(errno.ENOSPC, f"{free:,} bytes are free and {needed:,} needed")


def _check_google(part: Path, header: str) -> None:
    """Checks the MD5 that Google's storage states for what it sends: "crc32c=...,md5=..."."""
    hashes = dict(each.strip().partition("=")[::2] for each in header.split(","))
    with contextlib.suppress(ValueError):
        expected = base64.b64decode(hashes.get("md5", "")).hex()
        if expected and (found := cache.digest(part, "md5")) != expected:
            _forget(part)
            raise TryAgain(f"sends a file whose md5 is {found}, and says it is {expected}")


def _keep(part: Path, file: File) -> None:
    if not (file.sha256 or file.git):
        sha256 = cache.digest(part)
        cache.record(file.path, sha256)
        say(f"nobody has published the digest of {file.path.name}. It has sha256 {sha256}")
    part.replace(file.path)
    _forget(part)


def _forget(part: Path) -> None:
    for path in (part, _validators(part)):
        path.unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _validators(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remember(part: Path, url: str, headers: Mapping[str, str]) -> None:
    """The server's tag of this version of the file, for `If-Range`, which takes no weak tags."""
    tag = headers.get("ETag", "")
    strong = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    _validators(part).write_text(json.dumps({"url": url, "validator": strong}))


def _validator(part: Path, url: str) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(_validators(part).read_text())
        return content["validator"] if content["url"] == url else ""
    return ""


def _progress(file: File, start: int, end: int) -> tqdm:
    """A bar, on a terminal or in a notebook."""
    return tqdm(
        total=end or None,
        initial=start,
        desc=file.path.name,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
    )


def _described(file: File) -> str:
    size = f"{file.size:,} bytes, " if file.size else ""
    kinds = ((kind, getattr(file, kind)) for kind in ("sha256", "git"))
    known = next((f"{kind} {digest}" for kind, digest in kinds if digest), "no published digest")
    return f"{urlsplit(file.urls[0]).path.rpartition('/')[2]} ({size}{known})"


def _failure(file: File, reason: str, by_hand: str, trouble: list[str] | None = None) -> Exception:
    lines = [
        f"{_described(file)} is not on this machine, and {reason}. Get it by hand from "
        f"{file.urls[0]} and put it at {file.path}{by_hand}",
        *(trouble or []),
    ]
    return DownloadError("\n  ".join(lines))


def _unwritable(file: File, error: OSError, by_hand: str) -> Exception:
    return DownloadError(
        f"{_described(file)} cannot be kept in {file.path.parent}: {error.strerror or error}. Make "
        f"room there, or set {cache.VARIABLE} to another folder{by_hand}; its address is "
        f"{file.urls[0]}"
    )
