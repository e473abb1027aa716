"""The Frechet distance of two Gaussians (Dowson and Landau 1982; arXiv 1706.08500), in float64.

|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = F F^T the last trace is the sum of the
singular values of F1^T F2. A factor comes from an eigendecomposition, or is the centered features
themselves where there are no more of them than dimensions. Nothing is inverted and no matrix root
is taken: the result is right below full rank, where the root of S1 S2 is off by 4e-5 and complex.
"""

import numpy as np
from scipy import linalg

from inception.fid.bridge import UserError
from inception.fid.statistics import Statistics, check_comparable, check_count, statistics_of

_NEGATIVE = 1e-6  # of both traces: a distance below minus that is not rounding


def distance(first: Statistics, second: Statistics) -> float:
    """FID, and for other layers sFID and the like. It is symmetric and never negative.

    Args:
      first: Moments of one set of images.
      second: Moments of the other.

    Raises:
      UserError: for statistics of another origin or size, or matrices that are not covariances.
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

    FID of N images is biased by about a constant / N. Here it is computed for several N and a line
    in 1 / N is fitted.

    Args:
      reference: The fixed side.
      features: [n, d] of the other side, kept.
      points: Number of distances.
      smallest: Images of the smallest subset; a tenth of all where there are fewer than ten times
        as many, but at least 2.
      seed: Of the subsets.

    Raises:
      UserError: for fewer than two images.
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
