"""Counts what a network costs by tracing it; nothing is computed or compiled.

A convolution has output positions x filter positions x input channels x output channels
multiply-adds. As usual, padding counts like pixels; normalization, ReLU and pools count nothing.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params
from ml_collections import ConfigDict

from inception.network.model import make_model
from inception.ops.platforms import ANY, compiled_for

# Captions of figures with a field that differs from the paper's drawing.
VARIANTS = {
    ("Figure5", "short", 5): "with a 5x5",
    ("Figure6", "factorization", "full"): "with 7x7",
    ("Figure6", "factorization", "3x3"): "with 3x3",
    ("Figure7", "expanded", False): "unexpanded",
}
POOLS = {"reduce_window_max": "max pool", "reduce_window_sum": "average pool"}


def format_shape(*sizes: int) -> str:
    """Formats sizes as the paper does, "35x35x288"."""
    return "x".join(map(str, sizes))


class LayerCost(NamedTuple):
    """A convolution, a pool or a matrix product, on one image.

    Attributes:
      stage: Stage of the network, such as "Mixed_5b"; "" outside of any.
      inputs: Positions of the layers of its stage that it reads; () if it reads the stage's input.
      kind: "conv", "max pool", "average pool" or "linear".
      kernel: Height and width of the filter or window.
      stride: Stride in both directions.
      padded: Whether its input is padded.
      shape: Output shape, (height, width, channels) or (features,).
      multiply_adds: Multiply-adds of the forward pass.
      activation_bytes: Size of the output.
    """

    stage: str
    inputs: tuple[int, ...]
    kind: str
    kernel: tuple[int, int]
    stride: int
    padded: bool
    shape: tuple[int, ...]
    multiply_adds: int
    activation_bytes: int

    def __str__(self) -> str:
        """The notation of table 1, e.g. "conv padded 3x3/1"."""
        if self.kind == "linear":
            return self.kind
        padded = " padded" if self.kind == "conv" and self.padded else ""
        return f"{self.kind}{padded} {format_shape(*self.kernel)}/{self.stride}"


class StageCost(NamedTuple):
    """A stage of the network, or the sum of several.

    Attributes:
      name: Name in the released code, such as "Mixed_5b".
      kind: Figure, such as "figure 5 with a 5x5", or its only layer, such as "conv 3x3/2".
      shape: Output shape, (height, width, channels) or (features,).
      parameters: Number of trainable parameters.
      layers: Layers, branch by branch.
    """

    name: str
    kind: str = ""
    shape: tuple[int, ...] = ()
    parameters: int = 0
    layers: tuple[LayerCost, ...] = ()

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image's forward pass."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Size of all its layers' outputs for one image, in the config's dtype.

        The backward pass needs at least that much memory; XLA's compiled training step keeps about
        twice as much (measured on a CPU, float32).
        """
        return sum(layer.activation_bytes for layer in self.layers)


class NetworkCost(NamedTuple):
    """The costs of a network.

    Attributes:
      image: Input shape, (height, width, channels).
      stages: Stages from the input to the logits, without the auxiliary head.
      aux_head: The auxiliary head (figure 8), which only training needs; None if there is none.
    """

    image: tuple[int, ...]
    stages: list[StageCost]
    aux_head: StageCost | None

    @property
    def total(self) -> StageCost:
        """Sum of all stages."""
        layers = tuple(layer for stage in self.stages for layer in stage.layers)
        return StageCost("total", "", (), sum(stage.parameters for stage in self.stages), layers)

    @property
    def total_with_aux_head(self) -> StageCost:
        """Sum of all stages and the auxiliary head: the network in training."""
        stages = [*self.stages, self.aux_head or StageCost("none")]
        return self._replace(stages=stages).total._replace(name="total with auxiliary head")


def count_network(config: ConfigDict, num_classes: int = 1000) -> NetworkCost:
    """Counts what the config's network costs at the config's image size and dtype.

    Raises:
      ValueError: If the images are too small for the network.
    """
    model = make_model(config, num_classes).clone(fuse=False)
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    captions: dict[str, str] = {}

    def note_figure(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        figure = type(context.module).__name__
        if figure.startswith("Figure"):
            differs = [
                text
                for (kind, field, value), text in VARIANTS.items()
                if kind == figure and getattr(context.module, field) == value
            ]
            captions[context.module.name] = " ".join([f"figure {figure[6:]}", *differs])
        return call(*args, **kwargs)

    with nn.intercept_methods(note_figure):
        # Initialization runs every layer once, the auxiliary head's too, and gives the parameters.
        layers, outputs = trace(model.init_with_output, jax.random.key(0), image)
    (logits, endpoints), variables = outputs
    endpoints |= {"Logits": logits, "AuxLogits": endpoints.get("aux_logits")}

    def stage(name: str) -> StageCost:
        own = tuple(layer for layer in layers if layer.stage == name)
        kind = captions.get(name) or (str(own[0]) if own else "average pool")
        parameters = jax.tree.leaves(variables["params"].get(name, {}))
        shape = endpoints[name].shape[1:]
        return StageCost(name, kind, shape, sum(leaf.size for leaf in parameters), own)

    names = list(dict.fromkeys(layer.stage for layer in layers))
    head = stage(names.pop(names.index("AuxLogits"))) if "AuxLogits" in names else None
    names.insert(names.index("Logits"), "pooled")  # the only stage that is not a layer
    return NetworkCost(image.shape[1:], [stage(name) for name in names], head)


def trace(function: Callable, *args: Any) -> tuple[list[LayerCost], Any]:
    """Finds the convolutions, pools and matrix products in a function of one image.

    Args:
      function: Function of arrays; it is traced, not computed.
      *args: Its arguments, or their shapes and dtypes.

    Returns:
      The layers in the order of the trace, and the shapes and dtypes of the function's results.
    """
    with compiled_for(ANY):
        jaxpr, outputs = jax.make_jaxpr(function, return_shape=True)(*args)
    layers: list[LayerCost] = []
    _walk(jaxpr.jaxpr, [frozenset()] * len(jaxpr.jaxpr.invars), layers)
    return layers, outputs


def _walk(
    jaxpr: Jaxpr, inputs: list[frozenset[int]], layers: list[LayerCost], outer: str = ""
) -> frozenset[int]:
    """Appends the layers of `jaxpr` and of the functions that it calls (jit, custom derivatives).

    Args:
      jaxpr: The program.
      inputs: Positions in `layers` of the layers that each of its arguments comes from.
      layers: The layers so far.
      outer: The stage that calls it: functions with a custom derivative have no name stack.

    Returns:
      Positions of the layers that its results come from.
    """
    sources = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(values: Iterable[Any]) -> list[frozenset[int]]:
        return [
            sources.get(value, frozenset()) if isinstance(value, Var) else frozenset()
            for value in values
        ]

    for equation in jaxpr.eqns:
        arguments = read(equation.invars)
        found = frozenset().union(*arguments)
        if layer := _layer(equation, outer):
            stages = [each.stage for each in layers] + [layer.stage]
            start = stages.index(layer.stage)
            own = tuple(source - start for source in sorted(found) if source >= start)
            layers.append(layer._replace(inputs=own))
            found = frozenset({len(layers) - 1})
        elif inner := list(jaxprs_in_params(equation.params)):
            stage = _stage(equation) or outer
            found = frozenset()
            for each in inner:
                its_own = arguments[len(arguments) - len(each.invars) :]  # without cond's index
                found |= _walk(each, its_own, layers, stage)
        sources |= dict.fromkeys(equation.outvars, found)
    return frozenset().union(*read(jaxpr.outvars))


def _stage(equation: JaxprEqn) -> str:
    """The second part of a name stack such as "Inception/Mixed_7b/branch1x1/conv"."""
    scopes = str(equation.source_info.name_stack).split("/")
    return scopes[1] if len(scopes) > 1 else ""


def _layer(equation: JaxprEqn, outer: str) -> LayerCost | None:
    """The equation as a layer of its own stage or else of `outer`; None if it is not a layer."""
    operands: list[Any] = [value.aval for value in equation.invars]
    output: Any = equation.outvars[0].aval
    params, name = equation.params, equation.primitive.name
    kernel, stride, products = (1, 1), 1, 0
    if name == "conv_general_dilated":
        kind, stride = "conv", params["window_strides"][0]
        _, *filter_axes = params["dimension_numbers"].rhs_spec
        channels, height, width = (operands[1].shape[axis] for axis in filter_axes)
        kernel, products = (height, width), channels * height * width
    elif name == "dot_general":
        kind, ((contracted, _), _) = "linear", params["dimension_numbers"]
        products = math.prod(operands[0].shape[axis] for axis in contracted)
    elif name in POOLS and output.shape[-1] > 1:  # 1: flax's count of the pixels in each window
        kind, stride = POOLS[name], params["window_strides"][1]
        kernel = params["window_dimensions"][1:3]
    else:
        return None
    return LayerCost(
        stage=_stage(equation) or outer,
        inputs=(),  # not known here
        kind=kind,
        kernel=kernel,
        stride=stride,
        padded=any(map(any, params.get("padding", ()))),
        shape=output.shape[1:],
        multiply_adds=output.size * products,
        activation_bytes=output.size * output.dtype.itemsize,
    )
