"""Counts what a network costs by tracing it: nothing is typed in, computed or compiled.

A multiply-add is one multiplication and one addition, of a convolution or a matrix product: output
positions x filter positions x input channels x output channels. As usual, zeros of the padding
count like pixels, and normalization, ReLU and pools count nothing.
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

# What is said of a figure with a field of another value than the paper draws.
VARIANTS = {
    ("Figure5", "short", 5): "with a 5x5",
    ("Figure6", "factorization", "full"): "with 7x7",
    ("Figure6", "factorization", "3x3"): "with 3x3",
    ("Figure7", "expanded", False): "unexpanded",
}
POOLS = {"reduce_window_max": "max pool", "reduce_window_sum": "average pool"}


def format_shape(*sizes: int) -> str:
    """Sizes as the paper writes them, "35x35x288"."""
    return "x".join(map(str, sizes))


class LayerCost(NamedTuple):
    """A convolution, a pool or a matrix product, on one image."""

    stage: str  # of the network that it belongs to, "Mixed_5b"; "" outside of any
    inputs: tuple[int, ...]  # positions in its stage of those it reads; () for the stage's input
    kind: str  # "conv", "max pool", "average pool" or "linear"
    kernel: tuple[int, int]  # height and width of the filter or window
    stride: int
    padded: bool
    shape: tuple[int, ...]  # of the output: (height, width, channels), or (features,)
    multiply_adds: int
    activation_bytes: int  # of the output

    def __str__(self) -> str:
        """In the words of table 1, "conv padded 3x3/1"."""
        if self.kind == "linear":
            return self.kind
        padded = " padded" if self.kind == "conv" and self.padded else ""
        return f"{self.kind}{padded} {format_shape(*self.kernel)}/{self.stride}"


class StageCost(NamedTuple):
    """A row of the network's outline, or the sum of several."""

    name: str  # slim's, "Mixed_5b"
    kind: str = ""  # "figure 5 with a 5x5", or what its only layer is, "conv 3x3/2"
    shape: tuple[int, ...] = ()  # of the output: (height, width, channels), or (features,)
    parameters: int = 0  # trainable ones
    layers: tuple[LayerCost, ...] = ()  # in the order of computation

    @property
    def multiply_adds(self) -> int:
        """Of the forward pass of one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """What its convolutions, pools and matrix products put out for one image.

        In the config's dtype. The backward pass needs at least that; the training step that XLA
        compiles keeps about twice as much (measured on a CPU, float32).
        """
        return sum(layer.activation_bytes for layer in self.layers)


class NetworkCost(NamedTuple):
    """A network's stages from the input to the logits, and sums over them."""

    image: tuple[int, ...]  # (height, width, channels) of the input
    stages: list[StageCost]  # in the order of computation, without the side head
    aux_head: StageCost | None  # figure 8, which only training needs; None where there is none

    @property
    def total(self) -> StageCost:
        """All stages together."""
        layers = tuple(layer for stage in self.stages for layer in stage.layers)
        return StageCost("total", "", (), sum(stage.parameters for stage in self.stages), layers)

    @property
    def total_with_aux_head(self) -> StageCost:
        """All stages and the side head together: the network as it is trained."""
        stages = [*self.stages, self.aux_head or StageCost("none")]
        return self._replace(stages=stages).total._replace(name="total with side head")


def count_network(config: ConfigDict, num_classes: int = 1000) -> NetworkCost:
    """Counts what the config's network costs at the config's image size and dtype.

    Raises:
      ValueError: when the images are too small for the network.
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
        # Initialization runs every layer once, the side head's too, and gives the parameters.
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
    names.insert(names.index("Logits"), "pooled")  # the one stage that is no layer
    return NetworkCost(image.shape[1:], [stage(name) for name in names], head)


def trace(function: Callable, *args: Any) -> tuple[list[LayerCost], Any]:
    """Finds the convolutions, pools and matrix products in a function of one image.

    Args:
      function: of arrays; nothing is computed.
      args: its arguments, or their shapes and types.

    Returns:
      The layers in the order of computation, and the shapes and types of what `function` returns.
    """
    with compiled_for(ANY):
        jaxpr, outputs = jax.make_jaxpr(function, return_shape=True)(*args)
    layers: list[LayerCost] = []
    _walk(jaxpr.jaxpr, [frozenset()] * len(jaxpr.jaxpr.invars), layers)
    return layers, outputs


def _walk(
    jaxpr: Jaxpr, inputs: list[frozenset[int]], layers: list[LayerCost], outer: str = ""
) -> frozenset[int]:
    """Appends the layers of `jaxpr`, also those inside of other functions (jit, derivatives).

    `inputs` are the positions in `layers` of those that each of its arguments comes from; returns
    those of the layers that its outputs come from. `outer` is the stage of the function that
    `jaxpr` is: what has a derivative of its own does not know where it is called.
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
    """Of "Inception/Mixed_7b/branch1x1/conv" the second."""
    scopes = str(equation.source_info.name_stack).split("/")
    return scopes[1] if len(scopes) > 1 else ""


def _layer(equation: JaxprEqn, outer: str) -> LayerCost | None:
    """The equation as a layer, if it is one, of its own stage or the `outer` one."""
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
