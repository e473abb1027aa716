"""A cache of imported weights in our format: the second load needs no other library.

A folder is named by the digest of what was imported, the source, and this package's code: another
version imports again. It contains the digests of its files; a damaged folder is written again.
"""

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from inception.weights import cache
from inception.weights.files import WeightsError
from inception.weights.pretrained import DESCRIPTION_FILE, WEIGHTS_FILE, Pretrained, load, save

_SUMS, _HEX = "sha256sums", "[0-9a-f]"


def keep(key: str, source: str, importing: Callable[[], Pretrained]) -> Pretrained:
    """The weights from our cache, or imported and kept there.

    If the cache cannot be written, a message says so and the weights are imported every time.

    Args:
      key: SHA-256 of what is imported.
      source: Source that it is imported as.
      importing: Function that imports the weights.
    """
    if found := read(key, source):
        return found
    pretrained, folder = importing(), _folder(key, source)
    try:
        _write(folder, pretrained)
    except OSError as error:
        cache.say(f"{folder} cannot be written ({error.strerror}): imported again next time")
    return pretrained


def read(key: str, source: str) -> Pretrained | None:
    """The weights from our cache, if they are there and whole."""
    folder = _folder(key, source)
    if not folder.is_dir():
        return None
    try:
        if (folder / _SUMS).read_text() == _sums(folder):
            return load(folder, checked=True)
        problem = "its files are not those that were written"
    except (OSError, ValueError, WeightsError) as error:
        problem = str(error)
    cache.say(f"{folder} is damaged ({problem}): imported again")
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _write(folder: Path, pretrained: Pretrained) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as scratch:
        complete = Path(scratch) / folder.name
        save(complete, pretrained)
        (complete / _SUMS).write_text(_sums(complete))
        for older in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-{_HEX * 8}"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process's, which is as good
                raise


def _sums(folder: Path) -> str:
    return "".join(
        f"{cache.digest(folder / name)}  {name}\n" for name in (WEIGHTS_FILE, DESCRIPTION_FILE)
    )


def _folder(key: str, source: str) -> Path:
    return cache.folder() / "weights" / f"{key[:16]}-{source}-{_code()}"


@functools.cache
def _code() -> str:
    """A digest of this package's code: its importers, and the network that the arrays are for."""
    hashed, root = hashlib.sha256(), Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()[:8]
