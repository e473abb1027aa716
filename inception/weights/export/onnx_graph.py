"""The network as an ONNX graph, in which arrays with four axes are channels first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inception.weights.export.rebuild import Pairs, rebuild

OPSET, IR_VERSION = 17, 8  # of 2022, which newer runtimes read
_CHANNELS_FIRST = (0, 3, 1, 2)


def build(function: Callable, image_shape: tuple[int, ...], dtype: Any) -> onnx.ModelProto:
    """The checked graph of a function from "images" [batch, *image_shape] to "logits".

    Raises:
      NotImplementedError: If the function has an unknown operation, see `rebuild`.
    """
    graph = _Graph()
    images = graph.node("Transpose", "images", perm=_CHANNELS_FIRST)
    _, classes = rebuild(function, image_shape, dtype, graph, images)
    graph.nodes[-1].output[0] = "logits"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "inception",
            [helper.make_tensor_value_info("images", kind, ["batch", *image_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Collects nodes and initializers: a `rebuild.Library` whose arrays are names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Adds a node and returns the name of its output; NumPy arrays become initializers."""
        names = [each if isinstance(each, str) else self._initializer(each) for each in inputs]
        output = f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output

    def _initializer(self, array: np.ndarray) -> str:
        name = f"weight_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolution(self, images: str, kernel: np.ndarray, strides: Any, padding: Pairs) -> str:
        kernel = kernel.transpose(3, 2, 0, 1)
        return self.node("Conv", images, kernel, strides=strides, pads=_pads(padding))

    def max_pool(self, images: str, window: Any, strides: Any, padding: Pairs) -> str:
        pads = _pads(padding)
        return self.node("MaxPool", images, kernel_shape=window, strides=strides, pads=pads)

    def sum_pool(self, images: str, window: Any, strides: Any, padding: Pairs) -> str:
        attributes = {"kernel_shape": window, "strides": strides, "pads": _pads(padding)}
        average = self.node("AveragePool", images, count_include_pad=1, **attributes)
        return self.node("Mul", average, np.asarray(np.prod(window), np.float32))

    def concatenate(self, values: list[str]) -> str:
        return self.node("Concat", *values, axis=1)

    def sum(self, images: str) -> str:
        return self.node("ReduceSum", images, np.array([2, 3]), keepdims=0)

    def matrix_product(self, left: str, right: np.ndarray) -> str:
        return self.node("MatMul", left, right)

    def to_float(self, images: str) -> str:
        return self.node("Cast", images, to=TensorProto.FLOAT)

    def relu(self, images: str) -> str:
        return self.node("Relu", images)

    def elementwise(self, operation: str, left: Any, right: Any) -> str:
        return self.node(operation.capitalize(), _channels_first(left), _channels_first(right))


def _channels_first(value: Any) -> Any:
    is_image = isinstance(value, np.ndarray) and value.ndim == 4
    return value.transpose(_CHANNELS_FIRST) if is_image else value


def _pads(padding: Pairs) -> list[int]:
    return [before for before, _ in padding] + [after for _, after in padding]
