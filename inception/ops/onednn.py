"""oneDNN's convolutions on a CPU as primitives of JAX, with derivatives of every order.

`_onednn.cc` is the other half. On other platforms the primitives are XLA's convolutions.
"""

import ctypes
import os
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata, util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_TARGET = "inception_onednn"


class Geometry(NamedTuple):
    """The shapes of a convolution's arrays, and how it is computed."""

    x: tuple[int, ...]  # [batch, height, width, channels]
    kernel: tuple[int, ...]  # [height, width, channels, features]
    y: tuple[int, ...]  # [batch, height', width', features]
    stride: int
    padding: tuple[tuple[int, int], ...]  # (top, bottom), (left, right)
    blocked: bool = False  # whether the kernel is in oneDNN's blocked layout


def geometry_of(x: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: str) -> Geometry:
    """The geometry of a convolution of arrays of these shapes.

    Raises:
      ValueError: If they do not fit.
    """
    if len(x) != 4 or len(kernel) != 4 or x[3] != kernel[2]:
        raise ValueError(
            f"images {list(x)} cannot be convolved with a kernel {list(kernel)}: expected "
            "[batch, height, width, channels] and [height, width, channels, features]"
        )
    pads = lax.padtype_to_pads(x[1:3], kernel[:2], (stride, stride), padding)
    height, width = (
        max(0, (size + sum(pad) - taps) // stride + 1)
        for size, pad, taps in zip(x[1:3], pads, kernel[:2], strict=True)
    )
    return Geometry(x, kernel, (x[0], height, width, kernel[-1]), stride, tuple(pads))


def takes(*arrays: jax.Array) -> bool:
    """Whether oneDNN computes with arrays like these: not empty, and of sizes that are known."""
    sizes = [size for array in arrays for size in array.shape]
    return all(isinstance(size, int) and size for size in sizes)


@cache
def load() -> bool:
    """Registers oneDNN's convolutions with XLA; False if they cannot be loaded."""
    extension = util.find_spec("inception.ops._onednn")
    try:
        files = metadata.files("onednn-cpu-gomp") or []
    except metadata.PackageNotFoundError:
        return False
    library = next((file.locate() for file in files if file.name == "libdnnl.so.3"), None)
    if extension is None or extension.origin is None or library is None:
        return False
    try:
        _load_passive(str(library))
        convolve = jax.ffi.pycapsule(ctypes.CDLL(extension.origin).InceptionConvolve)
        jax.ffi.register_ffi_target(_TARGET, convolve, platform="cpu")
    except (OSError, AttributeError, RuntimeError) as error:
        warnings.warn(
            f"oneDNN's convolutions cannot be loaded ({error}), so XLA's are used. "
            'Build them again: pip install -e ".[cpu]"',
            stacklevel=2,
        )
        return False
    return True


def _load_passive(library: str) -> None:
    """Loads oneDNN with an OpenMP whose threads sleep between convolutions.

    They would keep spinning on the cores that XLA needs next. OpenMP reads the variable when it
    is loaded.
    """
    before = os.environ.get("OMP_WAIT_POLICY")
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        ctypes.CDLL(library)
    finally:
        del os.environ["OMP_WAIT_POLICY"]
        if before is not None:
            os.environ["OMP_WAIT_POLICY"] = before


def _by_xla(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """XLA's convolution, for platforms without oneDNN, whose kernels are not blocked."""
    strides, dimensions = (geometry.stride,) * 2, ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, geometry.padding, dimension_numbers=dimensions
    )


def _input_gradient_by_xla(kernel: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    x = jax.ShapeDtypeStruct(geometry.x, dy.dtype)
    return jax.linear_transpose(lambda x: _by_xla(x, kernel, geometry), x)(dy)[0]


def _kernel_gradient_by_xla(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    kernel = jax.ShapeDtypeStruct(geometry.kernel, dy.dtype)
    return jax.linear_transpose(lambda kernel: _by_xla(x, kernel, geometry), kernel)(dy)[0]


def _kernel_by_xla(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return kernel


def _primitive(name: str, shape: str, elsewhere: Callable) -> Primitive:
    """A function of arrays and `geometry`: a call of _onednn.cc, or off a CPU `elsewhere`.

    The geometry's field `shape` is that of its result. Arrays come in the order images, kernel,
    gradient of the output.
    """
    primitive = Primitive(f"onednn_{name}")

    def by_onednn(context, *arrays, geometry: Geometry):
        how: dict[str, Any] = geometry._asdict()
        for field in ("x", "kernel", "y", "padding"):
            how[field] = np.ravel(how[field])
        how["stride"] = np.int64(geometry.stride)
        return jax.ffi.ffi_lowering(_TARGET)(context, *arrays, result=name, **how)

    primitive.def_impl(jax.jit(primitive.bind, static_argnames="geometry"))
    primitive.def_abstract_eval(
        lambda first, *_, geometry: first.update(shape=getattr(geometry, shape))
    )
    mlir.register_lowering(primitive, mlir.lower_fun(elsewhere, multiple_results=False))
    mlir.register_lowering(primitive, by_onednn, platform="cpu")
    batching.primitive_batchers[primitive] = partial(_one_by_one, primitive)
    return primitive


def _one_by_one(primitive: Primitive, arrays: tuple, axes: tuple, geometry: Geometry):
    """The rule for vmap: one convolution after the other."""

    def one(mapped: list) -> jax.Array:
        rest = iter(mapped)
        those = (a if axis is None else next(rest) for a, axis in zip(arrays, axes, strict=True))
        return primitive.bind(*those, geometry=geometry)

    pairs = zip(arrays, axes, strict=True)
    mapped = [jnp.moveaxis(array, axis, 0) for array, axis in pairs if axis is not None]
    return lax.map(one, mapped), 0


output = _primitive("output", "y", _by_xla)
input_gradient = _primitive("input_gradient", "x", _input_gradient_by_xla)
kernel_gradient = _primitive("kernel_gradient", "kernel", _kernel_gradient_by_xla)
blocked_kernel = _primitive("blocked_kernel", "kernel", _kernel_by_xla)

# Each is linear in both of its arrays, and its transposes are the other two.
ad.defbilinear(
    output,
    lambda dy, x, kernel, **how: input_gradient.bind(kernel, dy, **how),
    lambda dy, x, kernel, **how: kernel_gradient.bind(x, dy, **how),
)
ad.defbilinear(
    input_gradient,
    lambda x, kernel, dy, **how: kernel_gradient.bind(x, dy, **how),
    lambda x, kernel, dy, **how: output.bind(x, kernel, **how),
)
ad.defbilinear(
    kernel_gradient,
    lambda kernel, x, dy, **how: input_gradient.bind(kernel, dy, **how),
    lambda kernel, x, dy, **how: output.bind(x, kernel, **how),
)
