"""Precision, recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797) of features.

The ball of a point reaches to its k-th nearest neighbor in its own set. All four metrics count
points in balls. Distances are computed in blocks on the device, in float32 at full precision.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from inception.fid.bridge import UserError
from inception.fid.kernel import check_pair

_BLOCK = 2**25  # number of distances in a block


class Neighborhoods(NamedTuple):
    """How much two sets overlap.

    Attributes:
      precision: Share of generated images inside a ball of a reference image.
      recall: Share of reference images inside a ball of a generated image.
      density: Mean number of reference balls around a generated image, divided by k.
      coverage: Share of reference balls that contain a generated image.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighborhoods(
    generated: np.ndarray, reference: np.ndarray, *, k: int = 3, closed: bool = True
) -> Neighborhoods:
    """Computes all four metrics.

    Args:
      generated: Features [n, d].
      reference: Features [m, d].
      k: Neighbor that a ball reaches to: 3 in ADM, StyleGAN and torch-fidelity, 5 in prdc.
      closed: Whether a point on the sphere is inside (ADM, torch-fidelity) or not (prdc).

    Raises:
      UserError: If the features do not fit together, or a set has at most k images.
    """
    check_pair(generated, reference)
    check_neighbor(min(len(generated), len(reference)), k)
    # Subtracting one point from all leaves distances, and cancels less.
    center = reference.mean(axis=0, dtype=np.float64)
    x, y = (jnp.asarray(each - center, jnp.float32) for each in (generated, reference))
    x_radii, y_radii = _radii(x, k), _radii(y, k)
    in_reference = np.zeros(len(x), np.int64)  # balls that hold each generated image
    in_generated, covered = np.zeros(len(y), bool), np.zeros(len(y), bool)
    for rows in _blocks(len(y), len(x)):
        found = _inside(y[rows], x, y_radii[rows], x_radii, closed=closed)
        per_generated, in_generated[rows], covered[rows] = map(np.asarray, found)
        in_reference += per_generated
    return Neighborhoods(
        precision=float((in_reference > 0).mean()),
        recall=float(in_generated.mean()),
        density=float(in_reference.mean() / k),
        coverage=float(covered.mean()),
    )


def check_neighbor(fewest: int, k: int) -> None:
    """Refuses a neighbor that the smaller set does not have.

    Raises:
      UserError: If `k` is not between 1 and `fewest` - 1.
    """
    if not 1 <= k < fewest:
        raise UserError(
            f"k={k} needs more than k images on both sides, and at least 1; one has {fewest}"
        )


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, _BLOCK // columns)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _radii(x: jax.Array, k: int) -> jax.Array:
    """The squared distance of every point to its k-th neighbor, itself excluded: [n]."""
    parts = [
        _nearest(x[rows], x, jnp.arange(rows.start, rows.stop), k=k)
        for rows in _blocks(len(x), len(x))
    ]
    return jnp.concatenate(parts)


def _squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    lengths = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)
    return jnp.maximum(lengths - 2 * products, 0)


@partial(jax.jit, static_argnames="k")
def _nearest(rows: jax.Array, x: jax.Array, own: jax.Array, *, k: int) -> jax.Array:
    distances = _squared_distances(rows, x).at[jnp.arange(len(rows)), own].set(jnp.inf)
    return -jax.lax.top_k(-distances, k)[0][:, -1]


@partial(jax.jit, static_argnames="closed")
def _inside(
    y: jax.Array, x: jax.Array, y_radii: jax.Array, x_radii: jax.Array, *, closed: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compares a block of reference points y with all generated points x.

    Returns:
      The number of balls around y that contain each x, [x]; whether each y is in a ball around an
      x, [y]; whether each ball around a y contains an x, [y].
    """
    distances = _squared_distances(y, x)
    is_inside = jnp.less_equal if closed else jnp.less
    in_y_balls = is_inside(distances, y_radii[:, None])
    in_x_balls = is_inside(distances, x_radii)
    return in_y_balls.sum(axis=0), in_x_balls.any(axis=1), in_y_balls.any(axis=1)
