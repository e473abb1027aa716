"""The convolution: XLA's, or on a single CPU oneDNN's, which is faster there.

oneDNN is called where `inception/_onednn.cc` was built and onednn-cpu-gomp is installed, for
float32 in a process that sees one device, a CPU: XLA cannot split a custom call over devices. A
program that is taken to other machines must not have it: its batch is of any size (then XLA's
convolutions are in it), or it is traced under `platforms.compiled_for(ANY)`.
"""

import jax
import jax.numpy as jnp

from inception import onednn
from inception.platforms import cores, may_be

# OpenMP has a team of as many threads as there are cores for each of XLA's, of which there are as
# many: 1,024 threads, nearly all of them asleep.
_MAX_CORES = 32


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: str = "SAME",
    packed: bool = False,
) -> jax.Array:
    """The convolution.

    Args:
      x: [batch, height, width, channels]; computed in the kernel's type.
      kernel: [height, width, channels, features].
      stride: in both directions.
      padding: "SAME" or "VALID".
      packed: whether the kernel is what `pack` returned for these settings and an x of this
        height and width, in this process and for the same platform.

    Returns:
      [batch, height', width', features], of the kernel's type. Gradients inside of `jax.shard_map`
      need `platforms.compiled_for(ANY)`.

    Raises:
      ValueError: when the shapes do not fit.
    """
    x = x.astype(kernel.dtype)
    how = onednn.geometry_of(x.shape, kernel.shape, stride, padding, packed)
    if is_onednn_used(kernel.dtype) and onednn.takes(x, kernel):
        return onednn.output.bind(x, kernel, geometry=how)
    return onednn.by_xla(x, kernel, how)


def pack(
    kernel: jax.Array, x: tuple[int, ...], *, stride: int = 1, padding: str = "SAME"
) -> jax.Array:
    """The kernel as `convolve` is fastest with: packed once for many calls.

    Args:
      kernel: [height, width, channels, features].
      x: the shape of what it is for, [batch, height, width, channels]; any batch will do.
      stride: of the convolution.
      padding: of the convolution.

    Returns:
      An array of the kernel's shape; its elements may be in another order.
    """
    if not is_onednn_used(kernel.dtype):
        return kernel
    how = onednn.geometry_of((1, *x[1:]), kernel.shape, stride, padding, packed=True)
    return onednn.packed_kernel.bind(kernel, geometry=how)


def is_onednn_used(dtype: jax.typing.DTypeLike = jnp.float32) -> bool:
    """Whether convolutions of this type that are compiled for a CPU are oneDNN's."""
    if dtype != jnp.float32 or not may_be("cpu") or cores() > _MAX_CORES:
        return False
    # In this order: where it is not installed, no devices are looked for.
    return onednn.load() and jax.device_count() == 1 and jax.default_backend() == "cpu"
