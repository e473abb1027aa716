"""Mean and covariance, summed on the devices batch by batch inside a jitted step.

moments = empty(extract)
moments = add(moments, extract.features(images))  # in any jitted function; no communication
statistics = finish(moments)  # float64 on the host, equal on all processes

Every device sums its own images. Features are shifted by the mean of the device's first batch
before they are multiplied, and batches are added with a compensated sum, so that float32 gives FID
to 1e-7 (docs/fid.md). Moments are a pytree of arrays: they can be donated, scanned over and saved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from inception.fid import bridge
from inception.fid.bridge import Mesh, UserError
from inception.fid.extract import Extractor
from inception.fid.statistics import UNKNOWN, Origin, Statistics, check_count

_EXCHANGED = 2**22  # float64 numbers that all processes together exchange at once


class Sum(NamedTuple):
    """A compensated sum: the float32 total, and the sum of its rounding errors."""

    total: jax.Array
    lost: jax.Array

    def plus(self, value: jax.Array) -> "Sum":
        """The sum with one more value, by Knuth's two-sum."""
        # The barriers keep any compiler from simplifying (total + value) - total.
        total = jax.lax.optimization_barrier(self.total + value)
        seen = jax.lax.optimization_barrier(total - self.total)
        error = (self.total - (total - seen)) + (value - seen)
        return Sum(total, self.lost + error)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("count", "shift", "values", "products"),
    meta_fields=("origin",),
)
@dataclass(frozen=True)
class Moments:
    """Sums over the images of each device.

    Attributes:
      count: Number of images, int32 [devices].
      shift: Constant that is subtracted from features, float32 [devices, d].
      values: Sums of shifted features, [devices, d].
      products: Sums of their outer products, [devices, d, d].
      origin: Origin of the features.
    """

    count: jax.Array
    shift: jax.Array
    values: Sum
    products: Sum
    origin: Origin = UNKNOWN


def empty(features: Extractor | Mapping[str, int] | int, mesh: Mesh | None = None) -> Any:
    """Moments of no images.

    Args:
      features: An Extractor, for all of its layers except the logits; the number of features of
        each layer; or one number, for features of your own.
      mesh: The devices, in any number of axes; None for all devices.

    Returns:
      A dictionary of Moments by layer, or for one number a Moments: 8 d^2 bytes on each device.
    """
    mesh = mesh or bridge.make_mesh()
    if isinstance(features, int):
        return _zeros(features, UNKNOWN, mesh)
    if isinstance(features, Extractor):
        sizes = {name: d for name, d in features.sizes.items() if name != "logits"}
        return {name: _zeros(d, features.origin(name), mesh) for name, d in sizes.items()}
    return {name: _zeros(d, Origin(layer=name), mesh) for name, d in features.items()}


def of_shapes(d: int, mesh: Mesh) -> Moments:
    """Moments of d features as shapes and types, to compile for devices elsewhere."""
    n, over_all = mesh.size, NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=over_all)

    return Moments(
        count=array(n, dtype=jnp.int32),
        shift=array(n, d),
        values=Sum(array(n, d), array(n, d)),
        products=Sum(array(n, d, d), array(n, d, d)),
    )


def _zeros(d: int, origin: Origin, mesh: Mesh) -> Moments:
    over_all = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    make = jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=over_all)
    zeros = partial(make, dtype=jnp.float32)
    n = mesh.size
    return Moments(
        count=make((n,), jnp.int32),
        shift=zeros((n, d)),
        values=Sum(zeros((n, d)), zeros((n, d))),
        products=Sum(zeros((n, d, d)), zeros((n, d, d))),
        origin=origin,
    )


def add(moments: Any, features: Any, mask: jax.Array | None = None) -> Any:
    """Adds a batch. The function is pure, for use inside jit, scan or shard_map.

    Args:
      moments: A Moments, or a dictionary of them.
      features: float [batch, d], or a dictionary by layer, of which those of `moments` count. The
        batch must be a multiple of the number of devices, and is split over them in order.
      mask: bool [batch], False for rows that are padding; None for none.

    Raises:
      UserError: If the features have another shape.
    """
    if isinstance(moments, dict):
        return {name: add(each, features[name], mask) for name, each in moments.items()}
    devices, d = moments.shift.shape
    if features.ndim != 2 or features.shape[1] != d or len(features) % devices:
        raise UserError(
            f"features have shape {list(features.shape)}, and must be [batch, {d}] with a batch "
            f"that is a multiple of the {devices} device(s)"
        )
    x = features.astype(jnp.float32).reshape(devices, -1, d)
    valid = jnp.ones(x.shape[:2], bool) if mask is None else mask.reshape(x.shape[:2])
    count = valid.sum(axis=1, dtype=jnp.int32)
    several = jnp.maximum(count, 1).astype(jnp.float32)[:, None]
    mean = jnp.where(valid[..., None], x, 0).sum(axis=1) / several
    shift = jnp.where(moments.count[:, None] == 0, mean, moments.shift)
    x = jnp.where(valid[..., None], x - shift[:, None], 0)
    products = jnp.einsum("nbd,nbe->nde", x, x, precision=jax.lax.Precision.HIGHEST)
    return Moments(
        count=moments.count + count,
        shift=shift,
        values=moments.values.plus(x.sum(axis=1)),
        products=moments.products.plus(products),
        origin=moments.origin,
    )


def finish(moments: Any) -> Any:
    """Adds the sums of all devices and processes in float64.

    Args:
      moments: A Moments, or a dictionary of them. All processes must call this together.

    Returns:
      Statistics, or a dictionary of them, the same on all processes.

    Raises:
      UserError: If there are fewer than two images, or a sum is not finite.
    """
    if isinstance(moments, dict):
        return {name: finish(each) for name, each in moments.items()}
    count, mean = _counts_and_means(moments)
    total = int(count.sum())
    check_count(total)
    center = (count[:, None] * mean).sum(axis=0) / total
    if not np.isfinite(center).all():
        raise UserError("features are not finite: look for NaN in the images or in the weights")
    scatter = _over_processes(_scatter(moments, center))
    covariance = scatter / (total - 1)
    return Statistics(center, (covariance + covariance.T) / 2, total, moments.origin)


def _counts_and_means(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """The number of images and their mean, of every device of every process."""
    count = np.concatenate(_own(moments.count)).astype(np.float64)
    values = np.concatenate(_own(moments.values.total)) + np.concatenate(
        _own(moments.values.lost), dtype=np.float64
    )
    mean = np.concatenate(_own(moments.shift)) + values / np.maximum(count, 1)[:, None]
    both = _gather(np.concatenate([count[:, None], mean], axis=1))
    both = both.reshape(-1, both.shape[-1])
    return both[:, 0], both[:, 1:]


def _scatter(moments: Moments, center: np.ndarray) -> np.ndarray:
    """The sum of outer products of this process's features minus `center`."""
    parts = (moments.count, moments.shift, *moments.values, *moments.products)
    result = np.zeros((len(center), len(center)))
    for count, shift, *sums in zip(*map(_own, parts), strict=True):
        value, value_lost, product, product_lost = (each[0].astype(np.float64) for each in sums)
        value += value_lost
        away = shift[0] - center  # sum (x + away) (x + away)^T, x being shifted features
        cross = np.outer(value, away)
        result += product + product_lost + cross + cross.T + count[0] * np.outer(away, away)
    return result


def _own(array: jax.Array) -> list[np.ndarray]:
    """The rows of this process's devices, [1, ...] each, in the devices' order."""
    if any(shard.replica_id for shard in array.addressable_shards) and jax.process_count() > 1:
        raise UserError("moments must stay split over all devices, as fid.empty makes them")
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    pieces = [np.asarray(shards[start]) for start in sorted(shards)]
    return [row[None] for piece in pieces for row in piece]


def _over_processes(array: np.ndarray) -> np.ndarray:
    """Sums float64 [rows, ...] over processes, some rows at a time."""
    if jax.process_count() == 1:
        return array
    step = max(1, _EXCHANGED // (array[0].size * jax.process_count()))
    parts = [_gather(array[i : i + step]).sum(axis=0) for i in range(0, len(array), step)]
    return np.concatenate(parts)


def _gather(array: np.ndarray) -> np.ndarray:
    """Collects float64 of every process, [processes, ...], as bytes: devices may lack float64."""
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return array[None]
    raw = multihost_utils.process_allgather(np.ascontiguousarray(array).view(np.uint32))
    return np.asarray(raw).view(np.float64)
