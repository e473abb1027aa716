"""The metrics of two sets of images by name, what they need, and warnings about their inputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from inception.fid.bridge import UserError
from inception.fid.files import Summary
from inception.fid.frechet import distance, distance_at_infinity
from inception.fid.images import LOSSY
from inception.fid.kernel import check_subset, kernel_distance
from inception.fid.neighbors import check_neighbor, neighborhoods
from inception.fid.score import check_parts, inception_score
from inception.fid.statistics import Statistics, check_comparable

METRICS = ("fid", "sfid", "kid", "is", "pr", "dc", "fid_infinity")
RANK = 2048  # with fewer images the covariance of pooled features is not of full rank
_PRDC_NEIGHBOR = 5  # prdc's radius of density and coverage


class Needs(NamedTuple):
    """The layers that metrics need, in the order of the metrics.

    Attributes:
      moments: Layers whose moments are needed.
      features: Layers whose features are needed, image by image.
    """

    moments: tuple[str, ...]
    features: tuple[str, ...]


def needs_of_real(metrics: Sequence[str], layer: str) -> Needs:
    """What metrics need of the reference."""
    return _needs(metrics, layer, {"fid", "sfid", "fid_infinity"}, {"kid", "pr", "dc"})


def needs_of_fake(metrics: Sequence[str], layer: str) -> Needs:
    """What metrics need of the generated images."""
    features = {"kid", "pr", "dc", "is", "fid_infinity"}
    return _needs(metrics, layer, {"fid", "sfid"}, features)


def _needs(metrics: Sequence[str], layer: str, moments: set[str], features: set[str]) -> Needs:
    of = {"sfid": "spatial", "is": "logits"}

    def layers(wanting: set[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(of.get(name, layer) for name in metrics if name in wanting))

    return Needs(layers(moments), layers(features))


def check_names(metrics: Sequence[str]) -> None:
    """Refuses unknown metrics.

    Raises:
      UserError: If one is not in `METRICS`.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise UserError(f"metric {unknown[0]!r} is unknown; it is one of {', '.join(METRICS)}")


def check_counts(
    real: int, fake: int, metrics: Sequence[str], *, subset_size: int, k: int, splits: int
) -> None:
    """Raises an error for sets that are too small for a metric.

    Args:
      real: Number of reference images.
      fake: Number of generated images.
      metrics: Names in `METRICS`.
      subset_size: Number of images in a subset of KID.
      k: Neighbor of precision and recall.
      splits: Number of parts of the Inception Score.

    Raises:
      UserError: As the metric itself would.
    """
    fewest = min(real, fake)
    if "kid" in metrics:
        check_subset(fewest, subset_size)
    if "pr" in metrics:
        check_neighbor(fewest, k)
    if "dc" in metrics:
        check_neighbor(fewest, _PRDC_NEIGHBOR)
    if "is" in metrics:
        check_parts(fake, splits)


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
    """Computes metrics.

    Args:
      real: The reference.
      fake: The generated images.
      metrics: Names in `METRICS`.
      layer: Layer of FID, KID, precision, recall, density and coverage.
      subset_size: Number of images in a subset of KID.
      k: Neighbor of precision and recall; density and coverage take 5 and open balls, as prdc does.
      splits: Number of parts of the Inception Score.
      block: Number of images in a part instead, in order: 5000 in ADM; 0 for `splits` parts.
      seed: Seed of FID-infinity's subsets.

    Returns:
      The values, by the names that --json has.

    Raises:
      UserError: If the summaries are of different origins, or one lacks what a metric needs.
    """
    check_names(metrics)
    check_comparable(real.origin, fake.origin)
    found: dict[str, Any] = {}
    if "fid" in metrics:
        found["fid"] = distance(_moments(real, layer), _moments(fake, layer))
    if "sfid" in metrics:
        found["sfid"] = distance(_moments(real, "spatial"), _moments(fake, "spatial"))
    if "kid" in metrics:
        # In torch-fidelity's order, for its draws: the generated images are its input 1.
        pair = _features(fake, layer), _features(real, layer)
        found["kid"] = kernel_distance(*pair, size=subset_size)._asdict()
    if "is" in metrics:
        logits = _features(fake, "logits")
        found["is"] = inception_score(logits, splits=splits, block=block or None)._asdict()
    if "pr" in metrics:
        pair = _features(fake, layer), _features(real, layer)
        both = neighborhoods(*pair, k=k)
        found |= {"precision": both.precision, "recall": both.recall}
    if "dc" in metrics:
        pair = _features(fake, layer), _features(real, layer)
        both = neighborhoods(*pair, k=_PRDC_NEIGHBOR, closed=False)
        found |= {"density": both.density, "coverage": both.coverage}
    if "fid_infinity" in metrics:
        rows = _features(fake, layer)
        found["fid_infinity"] = distance_at_infinity(_moments(real, layer), rows, seed=seed)
    return found


def _moments(summary: Summary, layer: str) -> Statistics:
    check_moments(summary, layer)
    return summary.statistics[layer]


def check_moments(summary: Summary, layer: str) -> None:
    """Refuses a summary without moments of a layer.

    Raises:
      UserError: If there are none.
    """
    if layer not in summary.statistics:
        raise UserError(
            f"{summary.path} has no statistics of layer {layer}; it has "
            f"{', '.join(summary.statistics) or 'none'}"
        )


def _features(summary: Summary, layer: str) -> np.ndarray:
    check_features(summary, layer)
    return summary.features[layer]


def check_features(summary: Summary, layer: str) -> None:
    """Refuses a summary without features of a layer.

    Raises:
      UserError: If there are none.
    """
    if layer not in summary.features:
        raise UserError(
            f"{summary.path} has no features of layer {layer}, which all metrics but FID and sFID "
            "need: pass its images, or statistics written with --features"
        )


def cautions(side: Summary) -> list[str]:
    """Warnings about one set, one sentence each."""
    found = []
    if 0 < side.count < RANK:
        found.append(
            f"{side.path} has {side.count:,} images, fewer than {RANK:,}: FID is mostly bias; "
            "use 10,000 or more, or KID"
        )
    if len(side.sizes) > 1:
        found.append(f"{side.path} has images of {len(side.sizes):,} different sizes")
    if side.deep:
        found.append(
            f"{side.path} has {side.deep:,} images of 16-bit gray, 32-bit integers or floats, "
            "clipped to [0, 255] as in every tool: convert them to 8 bits"
        )
    if not side.origin.weights:
        found.append(f"{side.path} does not say which weights it was made with")
    if side.origin.precision == "default":
        found.append(
            f"{side.path} was measured with --precision=default, which is for tracking only"
        )
    return found


def cautions_of_both(real: Summary, fake: Summary) -> list[str]:
    """Warnings about two sets, a sentence each."""
    found = [*cautions(real), *cautions(fake)]
    if real.count and fake.count and real.count != fake.count:
        found.append(f"the sides have {real.count:,} and {fake.count:,} images")
    lossy = [any(each in LOSSY for each in side.formats) for side in (real, fake)]
    if real.formats and fake.formats and lossy[0] != lossy[1]:
        one, other = (real, fake) if lossy[0] else (fake, real)
        names = ", ".join(name for name in one.formats if name)
        found.append(
            f"{one.path} is compressed with loss ({names}) and {other.path} is not: that alone "
            "changes FID, by whole points at low qualities"
        )
    return found
