"""Mean, covariance and origin of features."""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy import linalg

from inception.fid.bridge import UserError


@dataclass(frozen=True)
class Origin:
    """The origin of features. Statistics of different origins are not comparable.

    Attributes:
      protocol: Name of the image protocol.
      layer: Name of the layer.
      weights: SHA-256 of the network's weights.
      precision: Precision of products, "highest" or "default".
    """

    protocol: str = ""
    layer: str = ""
    weights: str = ""
    precision: str = ""


UNKNOWN = Origin()

# Shares of the largest eigenvalue.
_NOISE = 1e-4  # a negative eigenvalue that is no larger comes from a file's rounding to float32
_ZERO = 1e-13  # a positive one that is no larger is a rounded zero, whose root would not be small


@dataclass(frozen=True)
class Statistics:
    """Moments of features [n, d], in float64.

    Attributes:
      mean: [d].
      covariance: [d, d], divided by n - 1.
      count: Number of images; 0 if unknown, as in published files.
      origin: Origin of the features; unknown fields are "".
      centered: Features minus their mean, [n, d], if there are at most d; exact and faster.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int = 0
    origin: Origin = UNKNOWN
    centered: np.ndarray | None = None

    @cached_property
    def factor(self) -> np.ndarray:
        """The matrix F [d, rank] whose F F^T is the covariance.

        Raises:
          UserError: If the matrix is not a covariance.
        """
        if self.centered is not None:
            return self.centered.T / np.sqrt(self.count - 1)
        values, vectors = linalg.eigh(self.covariance)
        if values[0] < -_NOISE * max(values[-1], 0):
            raise UserError(
                f"sigma is not a covariance: its smallest eigenvalue is {values[0]:.3g}, its "
                f"largest {values[-1]:.3g}"
            )
        kept = values > _ZERO * values[-1]
        if self.count:
            kept[: -(self.count - 1)] = False  # n images span n - 1 dimensions; the rest is noise
        return vectors[:, kept] * np.sqrt(values[kept])


def statistics_of(features: np.ndarray, origin: Origin = UNKNOWN) -> Statistics:
    """Computes the moments of features in memory.

    Args:
      features: Features [n, d] of any network.
      origin: Their origin.

    Raises:
      UserError: If there are fewer than two images, or features are not finite.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise UserError(f"features have shape {list(features.shape)}; they must be [images, d]")
    check_count(len(features))
    if not np.isfinite(features).all():
        raise UserError("features are not finite: look for NaN in the images or in the weights")
    mean = features.mean(axis=0, dtype=np.float64)
    centered = features - mean
    few = len(features) <= features.shape[1]
    covariance = centered.T @ centered / (len(features) - 1)
    return Statistics(mean, covariance, len(features), origin, centered if few else None)


def check_count(count: int) -> None:
    """Refuses sets without a covariance.

    Raises:
      UserError: If there are fewer than two images.
    """
    if count < 2:
        raise UserError(f"{count} image{'s' * (count != 1)}: a covariance needs at least 2")


def check_comparable(first: Origin, second: Origin) -> None:
    """Refuses to compare features of different origins.

    Raises:
      UserError: If a field is known on both sides and differs.
    """
    for field in fields(Origin):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if one and other and one != other:
            short = (value[:12] for value in (one, other))
            raise UserError(
                "the two sides differ in their {}, {} and {}. Compute both with the same".format(
                    field.name, *short
                )
            )
