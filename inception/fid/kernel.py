"""The Kernel Inception Distance (arXiv 1801.01401): an unbiased MMD^2 with a cubic kernel."""

from typing import NamedTuple

import numpy as np

from inception.fid.bridge import UserError


class MeanAndStd(NamedTuple):
    """Mean and standard deviation over subsets or splits; the deviation is divided by n."""

    mean: float
    std: float


def kernel_distance(
    generated: np.ndarray,
    reference: np.ndarray,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
) -> MeanAndStd:
    """KID over random subsets, drawn as torch-fidelity draws them; in float64.

    Args:
      generated: Features [n, d].
      reference: Features [m, d].
      subsets: Number of pairs of subsets.
      size: Number of images in a subset, drawn without replacement.
      seed: Seed of the draws; torch-fidelity's by default.

    Returns:
      The plain value: many papers print 1000 times as much. It may be slightly negative.

    Raises:
      UserError: If there are fewer images than a subset has, or the features do not fit together.
    """
    check_pair(generated, reference)
    check_subset(min(len(generated), len(reference)), size)
    rng = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        x = generated[rng.choice(len(generated), size, replace=False)]
        y = reference[rng.choice(len(reference), size, replace=False)]
        found.append(_mmd2(x.astype(np.float64), y.astype(np.float64)))
    return MeanAndStd(float(np.mean(found)), float(np.std(found)))


def _mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate from two sets of one size."""
    n, d = x.shape

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / d + 1) ** 3

    same = sum(k.sum() - np.trace(k) for k in (kernel(x, x), kernel(y, y)))
    return same / (n * (n - 1)) - 2 * kernel(x, y).mean()


def check_subset(fewest: int, size: int) -> None:
    """Refuses a subset that is larger than the smaller set.

    Raises:
      UserError: If `size` is larger than `fewest`, or below 2.
    """
    if not 2 <= size <= fewest:
        raise UserError(
            f"KID draws subsets of {size:,} images and one side has {fewest:,}: use more images or "
            "a smaller subset (at least 2), and say so with the result"
        )


def check_pair(first: np.ndarray, second: np.ndarray) -> None:
    """Refuses features that cannot be compared.

    Raises:
      UserError: If their shapes are not [n, d] with one d, or values are not finite.
    """
    shapes = [list(each.shape) for each in (first, second)]
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise UserError(
            "the two sides have features {} and {}; they must be [images, d] with one d".format(
                *shapes
            )
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("features are not finite: look for NaN in the images or in the weights")
