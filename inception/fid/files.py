"""Statistics in .npz files: our own, and those that others have published.

Ours contain `mu` and `sigma` (pooled), `mu_s` and `sigma_s` (sFID's layer), as ADM's and
pytorch-fid's do, so that their tools read them; `mu_LAYER` and `sigma_LAYER` of other layers;
`features_LAYER` where features were kept; and `origin`, JSON that says where they come from. The
protocol of a file without `origin` must be named by the reader. Nothing is ever unpickled.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from etils import epath

from inception.fid.bridge import UserError, as_json, is_local, write_bytes
from inception.fid.images import image_array
from inception.fid.protocols import find_protocol
from inception.fid.statistics import UNKNOWN, Origin, Statistics, statistics_of

FORMAT = 1
# Layer -> the keys of its mean and covariance in all files.
_MOMENTS = {
    "pooled": (("mu", "sigma"), ("ref_mu", "ref_sigma")),  # MeanFlow's are the second
    "spatial": (("mu_s", "sigma_s"),),
}
# pytorch-fid's --dims writes any layer as mu and sigma.
_BY_SIZE = {64: "64", 192: "192", 768: "768"}
# Layer -> the keys of features: clean-fid's _kid.npz and score_sde's.
_FEATURES = {"pooled": ("feats", "pool_3"), "logits": ("logits",)}


@dataclass(frozen=True)
class Summary:
    """Moments and features of a set of images.

    Attributes:
      path: Path of the images or of their statistics.
      count: Number of images; 0 if a file does not say it.
      origin: Origin of the features, without a layer.
      statistics: Moments by layer.
      features: Features [n, d] by layer, where they were kept.
      formats: Formats of the image files, such as "JPEG"; "" for arrays.
      sizes: Heights and widths of the images.
      deep: Number of images of 16-bit gray, 32-bit integers or floats, which were clipped.
    """

    path: str
    count: int
    origin: Origin
    statistics: dict[str, Statistics]
    features: dict[str, np.ndarray] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    deep: int = 0


def has_images(path: str) -> bool:
    """Whether a file of statistics also contains images, as ADM's references do."""
    return bool(image_array(_names(path)))


def has_statistics(path: str) -> bool:
    """Whether a path is a file that contains moments or features."""
    if not path.lower().endswith(".npz"):
        return False
    names = _names(path)
    foreign = {key for keys in _MOMENTS.values() for pair in keys for key in pair}
    return bool(names & {*foreign, *(key for keys in _FEATURES.values() for key in keys), "origin"})


def load(path: str | os.PathLike, protocol: str | None = None) -> Summary:
    """Reads a file of statistics: ours, pytorch-fid's, ADM's, EDM's, clean-fid's, MeanFlow's, ...

    Args:
      path: FILE.npz on a disk or in a bucket.
      protocol: The protocol that it was made with; None for what the file says.

    Raises:
      UserError: If the file is damaged or has no statistics, or its protocol is unknown or another
        than `protocol`.
    """
    path = os.fspath(path)
    names = _names(path)
    with _opened(path) as file:
        arrays = {name: file[name] for name in names if name not in ("arr_0", "images")}
    said = Origin(protocol=find_protocol(protocol).name) if protocol else UNKNOWN
    if "origin" in arrays:
        origin, count, formats = _own(path, arrays)
        if said.protocol not in ("", origin.protocol):
            raise UserError(
                f"{path} was made with protocol {origin.protocol}, not {said.protocol}: compute "
                "its statistics again, or leave out --protocol"
            )
    elif not protocol:
        raise UserError(
            f"{path} does not say which protocol it was made with: name it, with "
            "--protocol=adm for example (docs/fid.md)"
        )
    else:
        origin, count, formats = said, 0, ()
    features = _features_in(path, arrays)
    statistics = _moments_in(path, arrays, origin, count)
    for layer, rows in features.items():
        if layer not in statistics and layer != "logits":
            statistics[layer] = statistics_of(rows, replace(origin, layer=layer))
    if not statistics and not features:
        raise UserError(f"{path} has no statistics mu and sigma; it has {sorted(names)}")
    return Summary(path, count, origin, statistics, features, formats)


def save(path: str | os.PathLike, summary: Summary, features: bool = False) -> None:
    """Writes statistics; the file is complete or absent.

    Args:
      path: FILE.npz on a disk or in a bucket, which does not exist yet.
      summary: The statistics, and features if they are wanted.
      features: Whether to write features too, which KID, precision and recall need.

    Raises:
      UserError: If the file exists, or cannot be written.
    """
    check_output(path)
    arrays: dict[str, Any] = {}
    for layer, statistics in summary.statistics.items():
        ending = {"pooled": "", "spatial": "_s"}.get(layer, f"_{layer}")
        arrays[f"mu{ending}"] = statistics.mean
        arrays[f"sigma{ending}"] = statistics.covariance
    if features:
        arrays |= {f"features_{layer}": rows for layer, rows in summary.features.items()}
    origin = summary.origin
    said = {
        "format": FORMAT,
        "protocol": origin.protocol,
        "weights_sha256": origin.weights,
        "precision": origin.precision,
        "images": summary.count,
        "formats": summary.formats,
    }
    content = io.BytesIO()
    np.savez(content, origin=np.array(as_json(said)), **arrays)
    write_bytes(epath.Path(path).expanduser(), content.getvalue())


def check_output(path: str | os.PathLike) -> None:
    """Refuses an output before the work that it is for.

    Raises:
      UserError: If the file exists, does not end in .npz, or its folder does not exist.
    """
    place = epath.Path(path).expanduser()
    if place.suffix != ".npz":
        raise UserError(f"{path} must end in .npz")
    if place.exists():
        raise UserError(f"{path} exists and is not overwritten: name another file")
    if is_local(path) and not place.absolute().parent.is_dir():
        raise UserError(f"{path}: there is no folder {place.parent}")


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Opens the arrays of a file; what is wrong with it, also while reading, is one sentence."""
    try:
        with (
            epath.Path(path).expanduser().open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            yield arrays
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and a bucket's client raise all kinds
        raise _unreadable(path, error) from error


def _names(path: str) -> set[str]:
    with _opened(path) as file:
        return set(file.files)


def _unreadable(path: str, error: Exception) -> UserError:
    if "pickle" in str(error).lower():
        return UserError(
            f"{path} holds a pickle, which can run code and is not read: save mu and sigma as "
            "plain arrays (docs/fid.md)"
        )
    return UserError(f"{path} is missing or damaged: {str(error).partition(chr(10))[0]}")


def _own(path: str, arrays: dict[str, np.ndarray]) -> tuple[Origin, int, tuple[str, ...]]:
    """The origin, count and formats that a file of ours states."""
    try:
        said = json.loads(str(arrays["origin"]))
        if said["format"] != FORMAT:
            raise UserError(
                f"{path} has format {said['format']!r}, and this version reads {FORMAT}: compute "
                "the statistics again"
            )
        origin = Origin(said["protocol"], "", said["weights_sha256"], said["precision"])
        return origin, int(said["images"]), tuple(said["formats"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: its origin cannot be read ({error!r})") from error


def _moments_in(
    path: str, arrays: dict[str, np.ndarray], origin: Origin, count: int
) -> dict[str, Statistics]:
    keys = {layer: list(pairs) for layer, pairs in _MOMENTS.items()}
    for name in arrays:
        layer = name.removeprefix("mu_")
        if layer != name and layer != "s":
            keys.setdefault(layer, []).append((name, f"sigma_{layer}"))
    found = {}
    for layer, pairs in keys.items():
        for mu, sigma in pairs:
            if mu in arrays and sigma in arrays:
                mean, covariance = (arrays[key].astype(np.float64) for key in (mu, sigma))
                _check(path, mu, sigma, mean, covariance)
                if "origin" not in arrays and layer == "pooled":
                    layer = _BY_SIZE.get(len(mean), layer)
                found[layer] = Statistics(mean, covariance, count, replace(origin, layer=layer))
    return found


def _check(path: str, mu: str, sigma: str, mean: np.ndarray, covariance: np.ndarray) -> None:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{path}: {mu} and {sigma} must be [d] and [d, d], and are {list(mean.shape)} and "
            f"{list(covariance.shape)}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: {mu} or {sigma} has values that are not finite")
    asymmetry = np.abs(covariance - covariance.T).max(initial=0)
    if asymmetry > 1e-4 * np.abs(covariance).max(initial=0):
        raise UserError(f"{path}: {sigma} is not symmetric, by up to {asymmetry:.3g}")


def _features_in(path: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {
        name.removeprefix("features_"): array
        for name, array in arrays.items()
        if name.startswith("features_")
    }
    for layer, keys in _FEATURES.items():
        for key in keys:
            if key in arrays:
                found[layer] = arrays[key]
    for layer, array in found.items():
        if array.ndim != 2 or array.dtype.kind != "f":
            raise UserError(
                f"{path}: features of {layer} must be floats [images, d], and are {array.dtype} "
                f"{list(array.shape)}"
            )
    return found
