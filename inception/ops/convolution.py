"""The convolution: XLA's, or on a single CPU oneDNN's, which is faster there.

oneDNN is called where `_onednn.cc` was built and onednn-cpu-gomp is installed, for float32 in a
process that sees one device, a CPU: XLA cannot split a custom call over devices. A program for
other machines must not contain it: either its batch has an unknown size (then it uses XLA's), or it
is traced under `platforms.compiled_for(ANY)`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax import lax

from inception.ops import onednn
from inception.ops.platforms import cores, is_reference, may_be

# OpenMP has a team of as many threads as there are cores for each of XLA's, of which there are as
# many: 1,024 threads, nearly all of them asleep.
_MAX_CORES = 32


def reference(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """XLA's convolution."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=dimensions
    )


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """Convolves.

    Args:
      x: [batch, height, width, channels]; cast to the kernel's type.
      kernel: [height, width, channels, features].
      stride: Stride in both directions.
      padding: "SAME" or "VALID".

    Returns:
      [batch, height', width', features], of the kernel's type. Gradients inside `jax.shard_map`
      need `platforms.compiled_for(ANY)`.

    Raises:
      ValueError: If the shapes do not fit.
    """
    x = x.astype(kernel.dtype)
    geometry = onednn.geometry_of(x.shape, kernel.shape, stride, padding)
    kernel, geometry = _kernel_of.get()(kernel, geometry)
    if is_onednn_used(kernel.dtype) and onednn.takes(x, kernel):
        return onednn.output.bind(x, kernel, geometry=geometry)
    return reference(x, kernel, stride, padding)


def is_onednn_used(dtype: jax.typing.DTypeLike = jnp.float32) -> bool:
    """Whether convolutions of this type that are compiled for a CPU are oneDNN's."""
    if dtype != jnp.float32 or is_reference("conv") or not may_be("cpu") or cores() > _MAX_CORES:
        return False
    # In this order: where it is not installed, no devices are looked for.
    return onednn.load() and jax.device_count() == 1 and jax.default_backend() == "cpu"


# What `conv` uses in place of its kernel: by default the kernel itself.
_KernelOf = Callable[[jax.Array, onednn.Geometry], tuple[jax.Array, onednn.Geometry]]
_kernel_of: ContextVar[_KernelOf] = ContextVar("_kernel_of", default=lambda *same: same)


@contextmanager
def prepare_kernels() -> Iterator[list[jax.Array]]:
    """Collects the kernels of the convolutions that are traced inside, in their order.

    They are in the form that is fastest for `conv`: siblings joined to one kernel, cast, and in
    oneDNN's blocked layout.
    Prepared once, they serve many calls of the same network (`with_kernels`).
    """
    kernels: list[jax.Array] = []

    def collect(kernel: jax.Array, geometry: onednn.Geometry) -> tuple:
        blocked = geometry._replace(blocked=True)
        used = is_onednn_used(kernel.dtype)
        kernels.append(onednn.blocked_kernel.bind(kernel, geometry=blocked) if used else kernel)
        return kernel, geometry

    with _kernels(collect):
        yield kernels


@contextmanager
def with_kernels(kernels: Sequence[jax.Array]) -> Iterator[None]:
    """The convolutions that are traced inside use these kernels in place of their own.

    Args:
      kernels: Those that `prepare_kernels` collected of the same network, in this process and for
        the same platform and image size.
    """
    remaining = iter(kernels)
    with _kernels(lambda _, geometry: (next(remaining), geometry._replace(blocked=True))):
        yield


@contextmanager
def _kernels(kernel_of: _KernelOf) -> Iterator[None]:
    token = _kernel_of.set(kernel_of)
    try:
        yield
    finally:
        _kernel_of.reset(token)
