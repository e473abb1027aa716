"""A traced network as an ONNX graph.

No converter serves: jax2onnx (0.17) requires an older Orbax than ours, replaces Flax's pools while
it traces by ones that take keywords only, and writes JAX's windows as 4-D pools, which onnxruntime
does not run; tf2onnx (1.17) does not know XlaCallModule, all that jax2tf writes. Our network is a
dozen of JAX's primitives, each one or two of ONNX's.

What depends on weights only is computed here. Activations with four axes are channels first in the
graph, as ONNX has them. The trace has a batch of one, and nothing in the graph depends on it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

OPSET, IR_VERSION = 17, 8  # of 2022; runtimes read older ones
_CHANNELS_FIRST = (0, 3, 1, 2)
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
_ELEMENTWISE = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max"}

# Of a weight the array, of an activation its name in the graph.
Value = np.ndarray | str


def build(function: Callable, image_shape: tuple[int, ...], dtype: Any) -> Any:
    """The graph of a function from "images" [batch, *image_shape] to "logits" [batch, classes].

    Returns:
      An onnx.ModelProto, checked.

    Raises:
      NotImplementedError: when the function uses anything that the network does not.
    """
    import onnx
    from onnx import TensorProto, helper

    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((1, *image_shape), dtype))
    graph = _Graph()
    images = graph.node("Transpose", "images", perm=_CHANNELS_FIRST)
    graph.run(traced, [images])
    graph.nodes[-1].output[0] = "logits"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    classes = traced.out_avals[0].shape[1]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "inception",
            [helper.make_tensor_value_info("images", kind, ["batch", *image_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and weights, as they come up."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, operation: str, *inputs: Value, **attributes: Any) -> str:
        """Adds an operation on weights, laid out as the graph's, and activations."""
        from onnx import helper

        names = [each if isinstance(each, str) else self._weight(each) for each in inputs]
        output = f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output

    def _weight(self, array: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def run(self, traced: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
        """Adds all of a traced function and returns its outputs."""
        jaxpr = traced.jaxpr
        known: dict[Any, Value] = dict(
            zip(jaxpr.constvars, map(np.asarray, traced.consts), strict=True)
        )
        known |= dict(zip(jaxpr.invars, inputs, strict=True))

        def value(variable: Any) -> Value:
            return np.asarray(variable.val) if isinstance(variable, Literal) else known[variable]

        for equation in jaxpr.eqns:
            outputs = self._equation(equation, [value(variable) for variable in equation.invars])
            known |= dict(zip(equation.outvars, outputs, strict=True))
        return [value(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, values: list[Value]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            return self.run(params[_CALLS[name]], values)
        if not any(isinstance(value, str) for value in values):
            return [np.asarray(equation.primitive.bind(*values, **params))]
        if name in _ELEMENTWISE:
            return [self._elementwise(_ELEMENTWISE[name], values)]
        if name not in _OPERATIONS:
            raise NotImplementedError(f"ONNX: {name} is no primitive that the network has used")
        return [_OPERATIONS[name](self, values, params)]

    def _elementwise(self, operation: str, values: list[Value]) -> str:
        if operation == "Max" and any(not isinstance(v, str) and not v.any() for v in values):
            return self.node("Relu", *[value for value in values if isinstance(value, str)])
        return self.node(operation, *map(_channels_first, values))


def _channels_first(value: Value) -> Value:
    if isinstance(value, str) or value.ndim != 4:
        return value
    return value.transpose(_CHANNELS_FIRST)


def _window(strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    """ONNX's attributes of a window over height and width."""
    return {
        "strides": list(strides),
        "pads": [low for low, _ in padding] + [high for _, high in padding],
    }


def _convolution(graph: _Graph, values: list[Value], params: dict) -> str:
    images, kernel = values
    assert tuple(params["dimension_numbers"]) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    assert params["feature_group_count"] == params["batch_group_count"] == 1
    assert set(params["lhs_dilation"]) | set(params["rhs_dilation"]) == {1}
    window = _window(params["window_strides"], params["padding"])
    return graph.node("Conv", images, np.asarray(kernel).transpose(3, 2, 0, 1), **window)


def _pool(operation: str, graph: _Graph, images: Value, params: dict, **attributes: int) -> str:
    kernel = params["window_dimensions"][1:3]
    window = _window(params["window_strides"][1:3], params["padding"][1:3])
    return graph.node(operation, images, kernel_shape=list(kernel), **window, **attributes)


def _max_pool(graph: _Graph, values: list[Value], params: dict) -> str:
    return _pool("MaxPool", graph, values[0], params)


def _sum_pool(graph: _Graph, values: list[Value], params: dict) -> str:
    average = _pool("AveragePool", graph, values[0], params, count_include_pad=1)
    return graph.node("Mul", average, np.asarray(np.prod(params["window_dimensions"]), np.float32))


def _concatenate(graph: _Graph, values: list[Value], params: dict) -> str:
    assert params["dimension"] == 3
    return graph.node("Concat", *map(_channels_first, values), axis=1)


def _sum(graph: _Graph, values: list[Value], params: dict) -> str:
    assert tuple(params["axes"]) == (1, 2)
    return graph.node("ReduceSum", values[0], np.array([2, 3]), keepdims=0)


def _matrix_product(graph: _Graph, values: list[Value], params: dict) -> str:
    assert params["dimension_numbers"] == (((1,), (0,)), ((), ()))
    return graph.node("MatMul", *values)


def _float(graph: _Graph, values: list[Value], params: dict) -> str:
    from onnx import helper

    return graph.node("Cast", values[0], to=helper.np_dtype_to_tensor_dtype(params["new_dtype"]))


_OPERATIONS: dict[str, Callable[[_Graph, list[Value], dict], str]] = {
    "conv_general_dilated": _convolution,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _sum_pool,
    "concatenate": _concatenate,
    "reduce_sum": _sum,
    "dot_general": _matrix_product,
    "convert_element_type": _float,
}
