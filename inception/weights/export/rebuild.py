"""Rebuilds the network from another library's operations, by a trace of its JAX primitives.

No existing converter works. jax2tf writes a single operation, XlaCallModule: TensorFlow 2.21 cannot
read its StableHLO from JAX 0.12, and tf2onnx cannot read it at all. jax2onnx (0.17) requires an
older Orbax, replaces Flax's pools during tracing by ones that take keywords only, and writes JAX's
windows as 4-D pools, which onnxruntime does not run. Our network has only a dozen primitives.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from inception.ops.platforms import ANY, compiled_for

Pairs = Sequence[tuple[int, int]]  # before and after, of height and width


class Library(Protocol):
    """Operations of another library on its own arrays and on constants, np.ndarray."""

    def convolution(self, images: Any, kernel: np.ndarray, strides: Any, padding: Pairs) -> Any:
        """Convolves with a kernel [height, width, in, out]."""

    def max_pool(self, images: Any, window: Any, strides: Any, padding: Pairs) -> Any:
        """The maxima of windows; padding does not count."""

    def sum_pool(self, images: Any, window: Any, strides: Any, padding: Pairs) -> Any:
        """The sums of windows; padding is 0."""

    def concatenate(self, values: list[Any]) -> Any:
        """Concatenates along channels."""

    def sum(self, images: Any) -> Any:
        """Sums over height and width and removes these axes."""

    def matrix_product(self, left: Any, right: np.ndarray) -> Any:
        """The product of two matrices."""

    def to_float(self, images: Any) -> Any:
        """Casts to float32."""

    def relu(self, images: Any) -> Any:
        """max(images, 0)."""

    def elementwise(self, operation: str, left: Any, right: Any) -> Any:
        """One of add, sub, mul and div, with broadcasting."""


def rebuild(
    function: Callable, image_shape: tuple[int, ...], dtype: Any, library: Library, images: Any
) -> tuple[Any, int]:
    """Rebuilds a function from images [batch, *image_shape] to logits.

    The trace has a batch of one, but the result does not depend on it. What depends on constants
    only is computed here.

    Args:
      function: Function in JAX.
      image_shape: Shape of one image.
      dtype: Type of the images.
      library: Library whose operations are called.
      images: The library's array of images.

    Returns:
      The library's logits, and the number of classes.

    Raises:
      NotImplementedError: If the function has an operation that the network does not have.
    """
    with compiled_for(ANY):
        traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((1, *image_shape), dtype))
    (logits,) = _run(traced, [images], library)
    return logits, traced.out_avals[0].shape[1]


def _run(traced: ClosedJaxpr, inputs: Sequence[Any], library: Library) -> list[Any]:
    jaxpr = traced.jaxpr
    known = dict(zip(jaxpr.constvars, map(np.asarray, traced.consts), strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def value(variable: Any) -> Any:
        return np.asarray(variable.val) if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        values = [value(variable) for variable in equation.invars]
        known |= dict(zip(equation.outvars, _equation(equation, values, library), strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _equation(equation: Any, values: list[Any], library: Library) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call"):
        return _run(params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"], values, library)
    if all(isinstance(value, np.ndarray) for value in values):
        return [np.asarray(equation.primitive.bind(*values, **params))]
    return [_operation(name, values, params, library)]


def _operation(name: str, values: list[Any], params: dict[str, Any], library: Library) -> Any:
    first, last = values[0], values[-1]
    match name:
        case "conv_general_dilated" if _is_usual(params):
            return library.convolution(first, last, params["window_strides"], params["padding"])
        case "reduce_window_max" if _of_images(params):
            return library.max_pool(first, *_window(params))
        case "reduce_window_sum" if _of_images(params):
            return library.sum_pool(first, *_window(params))
        case "concatenate" if params["dimension"] == 3:
            return library.concatenate(values)
        case "reduce_sum" if tuple(params["axes"]) == (1, 2):
            return library.sum(first)
        case "dot_general" if params["dimension_numbers"] == (((1,), (0,)), ((), ())):
            return library.matrix_product(first, last)
        case "convert_element_type" if params["new_dtype"] == np.float32:
            return library.to_float(first)
        case "max" if isinstance(last, np.ndarray) and not last.any():
            return library.relu(first)
        case "add" | "sub" | "mul" | "div":
            return library.elementwise(name, first, last)
        case _:
            raise NotImplementedError(f"{name} with these arguments is not supported")


def _is_usual(params: dict[str, Any]) -> bool:
    """Whether a convolution has channels last, no dilation and no groups, like the network's."""
    order = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    gaps = {*params["lhs_dilation"], *params["rhs_dilation"]}
    groups = (params["feature_group_count"], params["batch_group_count"])
    return tuple(params["dimension_numbers"]) == order and gaps == {1} and groups == (1, 1)


def _of_images(params: dict[str, Any]) -> bool:
    """Whether a window extends over height and width only, without dilation."""
    ends = [params["window_dimensions"][axis] for axis in (0, 3)]
    return ends == [1, 1] and {*params["base_dilation"], *params["window_dilation"]} == {1}


def _window(params: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The height and width, strides and padding of a window."""
    names = ("window_dimensions", "window_strides", "padding")
    size, strides, padding = (params[name][1:3] for name in names)
    return size, strides, padding
