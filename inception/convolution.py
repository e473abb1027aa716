"""The convolution: XLA's, or on a single CPU oneDNN's, which is faster there.

oneDNN is called where `inception/_onednn.cc` was built and onednn-cpu-gomp is installed, for
float32 in a process that sees one device, a CPU: XLA cannot split a custom call over devices.
"""

import ctypes
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib import metadata, util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# OpenMP has a team of as many threads as there are cores for each of XLA's, of which there are as
# many: 1,024 threads, nearly all of them asleep.
_MAX_CORES = 32
_is_portable = ContextVar("_is_portable", default=False)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int = 1,
    padding: str = "SAME",
    relu: bool = False,
    packed: bool = False,
) -> jax.Array:
    """The convolution, the bias added to it, and a ReLU behind it.

    Args:
      x: [batch, height, width, channels]; computed in the kernel's type.
      kernel: [height, width, channels, features].
      bias: [features]; None for none.
      stride: in both directions.
      padding: "SAME" or "VALID".
      relu: whether negative values become 0.
      packed: whether the kernel is what `pack` returned for these settings and an x of this
        height and width, in this process and both or neither under `portable`.

    Returns:
      [batch, height', width', features], of the kernel's type. oneDNN's has first derivatives in
      reverse mode alone; for others trace it under `portable`.
    """
    x = x.astype(kernel.dtype)
    if is_onednn_used(kernel.dtype):
        if bias is not None:
            bias = jnp.broadcast_to(bias, kernel.shape[-1:]).astype(kernel.dtype)
        y = _by_either(x, kernel, bias, stride, padding, packed)
    else:
        y = _by_xla(x, kernel, bias, stride=stride, padding=padding)
    return nn.relu(y) if relu else y  # oneDNN's ReLU would make 0 of a NaN


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
    by_onednn = _packed(x=(1, *x[1:]), stride=stride, padding=padding)
    return lax.platform_dependent(kernel, cpu=by_onednn, default=_same)


@contextmanager
def portable() -> Iterator[None]:
    """Convolutions traced inside are XLA's: for programs that are taken to other machines.

    A function under `jax.jit` that was traced before keeps the convolutions that it has.
    """
    token = _is_portable.set(True)
    try:
        yield
    finally:
        _is_portable.reset(token)


def is_onednn_used(dtype: jax.typing.DTypeLike = jnp.float32) -> bool:
    """Whether convolutions of this type that are compiled for a CPU are oneDNN's."""
    if dtype != jnp.float32 or _is_portable.get() or (os.cpu_count() or 1) > _MAX_CORES:
        return False
    # In this order: where it is not installed, no devices are looked for.
    return _load() and jax.device_count() == 1 and jax.default_backend() == "cpu"


@cache
def _load() -> bool:
    """Makes oneDNN's convolutions known to XLA; False where they are not installed, or unusable."""
    extension = util.find_spec("inception._onednn")
    try:
        files = metadata.files("onednn-cpu-gomp") or []
    except metadata.PackageNotFoundError:
        return False
    library = next((file.locate() for file in files if file.name == "libdnnl.so.3"), None)
    if extension is None or extension.origin is None or library is None:
        return False
    try:
        _load_passive(str(library))
        calls = ctypes.CDLL(extension.origin)
        for name in ("Output", "InputGradient", "KernelGradient", "PackedKernel"):
            call = jax.ffi.pycapsule(getattr(calls, name))
            jax.ffi.register_ffi_target(f"inception_onednn_{name}", call, platform="cpu")
    except (OSError, AttributeError, RuntimeError) as error:
        warnings.warn(
            f"convolutions are XLA's, for oneDNN's cannot be loaded ({error}). "
            'Build them again: pip install -e ".[cpu]"',
            stacklevel=2,
        )
        return False
    return True


def _load_passive(library: str) -> None:
    """Loads oneDNN with an OpenMP whose threads sleep between convolutions.

    They would go on spinning, on the cores that XLA needs next. OpenMP reads the variable when it
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


def _by_xla(x, kernel, bias, *, stride, padding):
    y = lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y if bias is None else y + bias


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _by_either(x, kernel, bias, stride, padding, packed):
    ways = _ways(_output_by_onednn, _by_xla, stride, padding, packed)
    return lax.platform_dependent(x, kernel, bias, **ways)


def _forward(x, kernel, bias, stride, padding, packed):
    return _by_either(x, kernel, bias, stride, padding, packed), (x, kernel, bias)


def _backward(stride, padding, packed, kept, dy):
    x, kernel, bias = kept
    ways = _ways(_gradients_by_onednn, _gradients_by_xla, stride, padding, packed)
    dx, dk = lax.platform_dependent(x, kernel, dy, **ways)
    return dx, dk, None if bias is None else dy.sum(axis=(0, 1, 2))


_by_either.defvjp(_forward, _backward)


# One function for equal settings: JAX traces each once for arrays of a shape.
@cache
def _ways(
    by_onednn: Callable, by_xla: Callable, stride: int, padding: str, packed: bool
) -> dict[str, Callable]:
    how = {"stride": stride, "padding": padding}
    return {"cpu": partial(by_onednn, **how, packed=packed), "default": partial(by_xla, **how)}


@cache
def _packed(x: tuple, stride: int, padding: str) -> partial:
    return partial(_pack_for_onednn, x=x, stride=stride, padding=padding)


def _same(kernel):
    return kernel


def _gradients_by_xla(x, kernel, dy, *, stride, padding):
    output = partial(_by_xla, bias=None, stride=stride, padding=padding)
    return jax.vjp(output, x, kernel)[1](dy)


def _output_by_onednn(x, kernel, bias, *, stride, padding, packed):
    shape, how = _geometry(x.shape, kernel.shape, stride, padding)
    bias = jnp.zeros(shape[-1], jnp.float32) if bias is None else bias
    return _call("Output", shape, x, kernel, bias, packed=packed, **how)


def _gradients_by_onednn(x, kernel, dy, *, stride, padding, packed):
    _, how = _geometry(x.shape, kernel.shape, stride, padding)
    dx = _call("InputGradient", x.shape, kernel, dy, packed=packed, **how)
    return dx, _call("KernelGradient", kernel.shape, x, dy, packed=packed, **how)


def _pack_for_onednn(kernel, *, x, stride, padding):
    y, how = _geometry(x, kernel.shape, stride, padding)
    return _call("PackedKernel", kernel.shape, kernel, x=np.array(x), y=np.array(y), **how)


def _geometry(x: tuple, kernel: tuple, stride: int, padding: str) -> tuple[tuple, dict]:
    """The output's shape, and strides and padding as oneDNN's calls have them."""
    pads = lax.padtype_to_pads(x[1:3], kernel[:2], (stride, stride), padding)
    height, width = (
        max(0, (size + sum(pad) - taps) // stride + 1)
        for size, pad, taps in zip(x[1:3], pads, kernel[:2], strict=True)
    )
    how = {"strides": np.array([stride, stride]), "padding": np.ravel(pads)}
    return (x[0], height, width, kernel[-1]), how


def _call(name: str, shape: tuple, *arrays: jax.Array, **how) -> jax.Array:
    output = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(f"inception_onednn_{name}", output, vmap_method="sequential")
    return call(*arrays, **how)
