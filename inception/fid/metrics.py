"""The metrics of two sets of images by name, and what to know before one believes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inception.fid.bridge import UserError
from inception.fid.files import Summary
from inception.fid.frechet import distance, distance_at_infinity
from inception.fid.images import LOSSY
from inception.fid.kernel import kernel_distance
from inception.fid.neighbors import neighborhoods
from inception.fid.score import inception_score
from inception.fid.statistics import check_comparable

METRICS = ("fid", "sfid", "kid", "is", "pr", "dc", "fid_infinity")
# Which of them need features of the real and of the generated images, not only moments.
FEATURES_OF_REAL = {"kid", "pr", "dc"}
FEATURES_OF_FAKE = {"kid", "pr", "dc", "is", "fid_infinity"}
RANK = 2048  # images below which the covariance of pooled features has not full rank


def layers_of(metrics: Sequence[str], layer: str) -> dict[str, set[str]]:
    """The layers that metrics are of: which layer, and which metrics."""
    of = {"sfid": "spatial", "is": "logits"}
    found: dict[str, set[str]] = {}
    for metric in metrics:
        found.setdefault(of.get(metric, layer), set()).add(metric)
    return found


def compare(
    real: Summary,
    fake: Summary,
    metrics: Sequence[str] = ("fid",),
    *,
    layer: str = "pooled",
    subset_size: int = 1000,
    k: int = 3,
    splits: int = 10,
    block: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics, by the names that JSON has.

    Args:
      real: The reference.
      fake: The generated images.
      metrics: Of `METRICS`.
      layer: Features of FID, KID, precision, recall, density and coverage.
      subset_size: Of KID.
      k: Neighbor of precision and recall; density and coverage take 5 and open balls, as prdc does.
      splits: Number of parts of the Inception Score.
      block: Images of a part instead, in order: 5000 in ADM; 0 for `splits` parts.
      seed: Of FID-infinity's subsets.

    Raises:
      UserError: for summaries of different origins, or that lack what a metric needs.
    """
    if unknown := set(metrics) - set(METRICS):
        raise UserError(f"metric {min(unknown)!r} is unknown; it is one of {', '.join(METRICS)}")
    check_comparable(real.origin, fake.origin)
    found: dict[str, Any] = {}
    if "fid" in metrics:
        found["fid"] = distance(_moments(real, layer), _moments(fake, layer))
    if "sfid" in metrics:
        found["sfid"] = distance(_moments(real, "spatial"), _moments(fake, "spatial"))
    if "kid" in metrics:
        # In torch-fidelity's order, for its draws: the generated images are its input 1.
        pair = _features(fake, layer, "kid"), _features(real, layer, "kid")
        found["kid"] = kernel_distance(*pair, size=subset_size)._asdict()
    if "is" in metrics:
        logits = _features(fake, "logits", "is")
        found["is"] = inception_score(logits, splits=splits, block=block or None)._asdict()
    if "pr" in metrics:
        pair = _features(fake, layer, "pr"), _features(real, layer, "pr")
        both = neighborhoods(*pair, k=k)
        found |= {"precision": both.precision, "recall": both.recall}
    if "dc" in metrics:
        pair = _features(fake, layer, "dc"), _features(real, layer, "dc")
        both = neighborhoods(*pair, k=5, closed=False)
        found |= {"density": both.density, "coverage": both.coverage}
    if "fid_infinity" in metrics:
        rows = _features(fake, layer, "fid_infinity")
        found["fid_infinity"] = distance_at_infinity(_moments(real, layer), rows, seed=seed)
    return found


def _moments(summary: Summary, layer: str) -> Any:
    if layer not in summary.statistics:
        raise UserError(
            f"{summary.path} has no statistics of layer {layer}; it has "
            f"{', '.join(summary.statistics)}"
        )
    return summary.statistics[layer]


def _features(summary: Summary, layer: str, metric: str) -> np.ndarray:
    if layer not in summary.features:
        raise UserError(
            f"{summary.path} has no features of layer {layer}, which {metric} needs: give its "
            "images, or statistics written with --features"
        )
    return summary.features[layer]


def cautions(side: Summary) -> list[str]:
    """What moves the numbers of a set besides its images, a sentence each."""
    found = []
    if 0 < side.count < RANK:
        found.append(
            f"{side.path} has {side.count:,} images, fewer than {RANK:,}: FID is mostly the bias "
            "of so few; use 10,000 or more, or KID"
        )
    if len(side.sizes) > 1:
        found.append(f"{side.path} has images of {len(side.sizes):,} different sizes")
    if side.deep:
        found.append(
            f"{side.path} has {side.deep:,} images of 16-bit gray, clipped at 255 as Pillow and so "
            "every tool does: convert them to 8 bits"
        )
    if not side.origin.weights:
        found.append(f"{side.path} does not say which weights it was made with")
    if side.origin.precision == "default":
        found.append(f"{side.path}: products were not of full precision, which is for tracking")
    return found


def cautions_of_both(real: Summary, fake: Summary) -> list[str]:
    """What moves the numbers of two sets, a sentence each."""
    found = [*cautions(real), *cautions(fake)]
    if real.count and fake.count and real.count != fake.count:
        found.append(f"the sides have {real.count:,} and {fake.count:,} images")
    lossy = [any(each in LOSSY for each in side.formats) for side in (real, fake)]
    if real.formats and fake.formats and lossy[0] != lossy[1]:
        one, other = (real, fake) if lossy[0] else (fake, real)
        names = ", ".join(name for name in one.formats if name)
        found.append(
            f"{one.path} is compressed with loss ({names}) and {other.path} is not: that alone "
            "moves FID, by whole points at low qualities"
        )
    return found
