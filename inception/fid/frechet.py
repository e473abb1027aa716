"""The Frechet distance of two Gaussians (Dowson and Landau 1982; arXiv 1706.08500), in float64.

|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = F F^T the last trace is the sum of the
singular values of F1^T F2. A factor is computed by an eigendecomposition; if there are no more
features than dimensions, it is the centered features themselves. No matrix root is taken, so that
the result is correct below full rank, where the root of S1 S2 is complex and off by 4e-5.
"""

import numpy as np
from scipy import linalg

from inception.fid.bridge import UserError
from inception.fid.statistics import Statistics, check_comparable, check_count, statistics_of

_NEGATIVE = 1e-6  # share of both traces; a distance below minus that is more than rounding


def distance(first: Statistics, second: Statistics) -> float:
    """The distance: FID, or sFID for its layer. It is symmetric and never negative.

    Args:
      first: Moments of one set of images.
      second: Moments of the other.

    Raises:
      UserError: If the two differ in origin or size, or a matrix is not a covariance.
    """
    check_comparable(first.origin, second.origin)
    if first.mean.shape != second.mean.shape:
        sizes = (len(each.mean) for each in (first, second))
        raise UserError(
            "the two sides have {} and {} features: compare equal layers".format(*sizes)
        )
    away = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    root = linalg.svdvals(first.factor.T @ second.factor).sum()
    result = float(away @ away + traces - 2 * root)
    if result < -_NEGATIVE * traces:
        raise UserError(f"the distance is {result:.3g}: one side's sigma is not a covariance")
    return max(result, 0.0)


def distance_at_infinity(
    reference: Statistics,
    features: np.ndarray,
    *,
    points: int = 15,
    smallest: int = 5000,
    seed: int = 0,
) -> float:
    """FID-infinity (arXiv 1911.07023): FID extrapolated to a set of infinitely many images.

    FID of N images is biased by about a constant / N. It is computed for several N, and a straight
    line in 1 / N is fitted.

    Args:
      reference: Moments of the reference, which stay fixed.
      features: Features [n, d] of the generated images.
      points: Number of distances.
      smallest: Number of images in the smallest subset, but at most a tenth of all and at least 2.
      seed: Seed of the subsets.

    Raises:
      UserError: If there are fewer than two images.
    """
    count = len(features)
    check_count(count)
    sizes = np.linspace(max(2, min(smallest, count // 10)), count, points).astype(int)
    rng = np.random.default_rng(seed)
    distances = []
    for size in sizes:
        subset = features[rng.choice(count, size, replace=False)]
        distances.append(distance(reference, statistics_of(subset, reference.origin)))
    slope_and_limit = np.polyfit(1 / sizes, distances, 1) if len(set(sizes)) > 1 else distances
    return float(slope_and_limit[-1])
