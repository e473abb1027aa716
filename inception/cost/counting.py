"""Counts what a network costs by tracing it: nothing is typed in, computed or compiled.

A multiply-add is one multiplication and one addition, of a convolution or a matrix product: output
positions x filter positions x input channels x output channels. As usual, zeros of the padding
count like pixels, and normalization, ReLU and pools count nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params
from ml_collections import ConfigDict

from inception.state import make_model


def format_shape(*sizes: int) -> str:
    """Sizes as the paper writes them, "35x35x288"."""
    return "x".join(map(str, sizes))


@dataclass(frozen=True)
class Layer:
    """A convolution, a pool or a matrix product, on one image.

    Attributes:
      stage: of the network that it belongs to, "Mixed_5b"; "" outside of any.
      name: its own, "branch3x3dbl_2".
      kind: "conv", "max pool", "average pool" or "linear".
      kernel: (height, width) of the filter or window.
      stride: in both directions.
      padded: whether it keeps its grid by padding.
      shape: of the output, (height, width, channels), or (features,) of a linear layer.
      multiply_adds: number.
      activation_bytes: of the output.
    """

    stage: str
    name: str
    kind: str
    kernel: tuple[int, int]
    stride: int
    padded: bool
    shape: tuple[int, ...]
    multiply_adds: int
    activation_bytes: int

    def __str__(self) -> str:
        """In the words of table 1, "conv padded 3x3/1"."""
        if self.kind == "linear":
            return self.kind
        padded = " padded" if self.kind == "conv" and self.padded else ""
        return f"{self.kind}{padded} {format_shape(*self.kernel)}/{self.stride}"


@dataclass(frozen=True)
class Stage:
    """A row of the network's outline.

    Attributes:
      name: slim's, "Mixed_5b".
      kind: "figure 5 with a 5x5", or what its only layer is, "conv 3x3/2".
      shape: of the output, (height, width, channels) or (features,).
      parameters: trainable ones.
      layers: in the order of computation.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    layers: tuple[Layer, ...]

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """What the stage's convolutions, pools and matrix products put out for one image.

        In the config's dtype. The backward pass needs at least that; the training step that XLA
        compiles keeps about twice as much (measured on a CPU, float32).
        """
        return sum(layer.activation_bytes for layer in self.layers)


@dataclass(frozen=True)
class Cost:
    """A network's stages from the input to the logits, and sums over them.

    Attributes:
      image: (height, width, channels) of the input.
      stages: in the order of computation, without the side head.
      side_head: figure 8, which only training needs; None where there is none.
    """

    image: tuple[int, ...]
    stages: tuple[Stage, ...]
    side_head: Stage | None

    @property
    def with_side_head(self) -> "Cost":
        """The network as it is trained, the side head as its last stage."""
        return replace(self, stages=(*self.stages, *filter(None, [self.side_head])), side_head=None)

    @property
    def parameters(self) -> int:
        """Trainable ones."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def multiply_adds(self) -> int:
        """Of the forward pass of one image."""
        return sum(stage.multiply_adds for stage in self.stages)

    @property
    def activation_bytes(self) -> int:
        """For one image, see `Stage.activation_bytes`."""
        return sum(stage.activation_bytes for stage in self.stages)


def cost(config: ConfigDict, num_classes: int = 1000) -> Cost:
    """Counts what the config's network costs at the config's image size and dtype.

    Args:
      config: of the run.
      num_classes: of the logits, the data set's; ImageNet has 1000.

    Raises:
      ValueError: when the images are too small for the network.
    """
    model = make_model(config, num_classes)
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    figures: dict[str, str] = {}

    def note_figure(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = type(context.module).__name__
        if module.startswith("Figure"):
            variant = getattr(context.module, "variant", "")
            figures[context.module.name] = module.replace("Figure", "figure ") + variant
        return call(*args, **kwargs)

    with nn.intercept_methods(note_figure):
        # Initialization runs every layer once, the side head's too, and gives the parameters.
        layers, outputs = trace(model.init_with_output, jax.random.key(0), image)
    (logits, endpoints), variables = outputs
    endpoints |= {"Logits": logits, "AuxLogits": endpoints.get("aux_logits")}

    def stage(name: str) -> Stage:
        own = tuple(layer for layer in layers if layer.stage == name)
        kind = figures.get(name) or (str(own[0]) if own else "average pool")
        parameters = jax.tree.leaves(variables["params"].get(name, {}))
        shape = endpoints[name].shape[1:]
        return Stage(name, kind, shape, sum(leaf.size for leaf in parameters), own)

    names = list(dict.fromkeys(layer.stage for layer in layers))
    head = stage(names.pop(names.index("AuxLogits"))) if "AuxLogits" in names else None
    names.insert(names.index("Logits"), "pooled")  # the one stage that is no layer
    return Cost(image.shape[1:], tuple(map(stage, names)), head)


def trace(function: Callable, *args: Any) -> tuple[list[Layer], Any]:
    """Finds the convolutions, pools and matrix products in a function of one image.

    Args:
      function: of arrays; nothing is computed.
      args: its arguments, or their shapes and types.

    Returns:
      The layers in the order of computation, and the shapes and types of what `function` returns.
    """
    jaxpr, outputs = jax.make_jaxpr(function, return_shape=True)(*args)
    return [layer for equation in _equations(jaxpr.jaxpr) for layer in _layer(equation)], outputs


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations, also those inside of other ones (jit, custom derivatives)."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _layer(equation: JaxprEqn) -> list[Layer]:
    """The equation as a layer, or nothing."""
    inputs: list[Any] = [value.aval for value in equation.invars]
    output: Any = equation.outvars[0].aval
    params = equation.params
    kernel, stride, products = (1, 1), 1, 0
    padding: Sequence[tuple[int, int]] = ()
    match equation.primitive.name:
        case "conv_general_dilated":
            kind, stride, padding = "conv", params["window_strides"][0], params["padding"]
            _, channels, height, width = (
                inputs[1].shape[axis] for axis in params["dimension_numbers"].rhs_spec
            )
            kernel, products = (height, width), channels * height * width
        case "dot_general":
            kind, ((contracted, _), _) = "linear", params["dimension_numbers"]
            products = math.prod(inputs[0].shape[axis] for axis in contracted)
        case "reduce_window_max" | "reduce_window_sum" as name:
            if output.shape[-1] == 1:  # flax's count of the pixels in each window
                return []
            kind = "max pool" if name == "reduce_window_max" else "average pool"
            kernel, stride = params["window_dimensions"][1:3], params["window_strides"][1]
            padding = params["padding"]
        case _:
            return []
    padded = any(before or after for before, after in padding)
    return [
        Layer(
            *_names(equation),
            kind,
            kernel,
            stride,
            padded,
            shape=output.shape[1:],
            multiply_adds=output.size * products,
            activation_bytes=output.size * output.dtype.itemsize,
        )
    ]


def _names(equation: JaxprEqn) -> tuple[str, str]:
    """Stage and layer from flax's scopes, "Inception/Mixed_7b/Mixed_7b._top/branch3x3_2a/conv"."""
    scopes = str(equation.source_info.name_stack).split("/")
    _, *names = [scope for scope in scopes if "." not in scope and scope != "conv"]
    return (names[0], names[-1]) if names else ("", "")
