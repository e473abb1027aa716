"""The layers of a Keras model inside the network, compared one by one with this network's own.

Weights that fit say nothing about strides, dilation, padding or pools. Both networks are therefore
followed from the last concatenation down to the image, through the inputs of every layer in their
order; neither the names of Keras's layers nor their positions in the file matter.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inception.cost.counting import trace
from inception.network.model import Inception
from inception.weights.files import WeightsError
from inception.weights.keras_graph import Layer, is_idle, refused

_KINDS = {"conv": "Conv2D", "max pool": "MaxPooling2D", "average pool": "AveragePooling2D"}
_RELUS = ("Activation", "ReLU")
INSIDE = {*_KINDS.values(), *_RELUS, "BatchNormalization", "Concatenate"}


class _Operation(NamedTuple):
    """A convolution or a pool of this network.

    Attributes:
      kind: Keras's class.
      arguments: Keras's arguments of it, such as {"strides": (2, 2)}, without those that do not
        matter: the padding of a 1x1 filter.
      reads: Positions of the operations whose outputs it takes side by side; () for the image.
    """

    kind: str
    arguments: dict[str, Any]
    reads: tuple[int, ...]


def read_body(path: str | Path, layers: list[Layer]) -> dict[str, Any]:
    """The fields of `Inception` that the layers inside the network state.

    Args:
      path: The file, for messages.
      layers: Layers in an order of computation; the last is the concatenation that ends them.

    Raises:
      WeightsError: If a layer computes something else than its counterpart here.
    """
    fields: dict[str, Any] = {}
    normalizations = [layer for layer in layers if layer.kind == "BatchNormalization"]
    for ours, theirs in (("batch_norm_epsilon", "epsilon"), ("batch_norm_decay", "momentum")):
        found = sorted({layer.config[theirs] for layer in normalizations})
        if len(found) > 1:
            raise WeightsError(
                f"{path}: its BatchNormalization layers have different values of {theirs}, "
                f"{found}. Give all of them the same"
            )
        if found:
            fields[ours] = float(found[0])
    for layer in layers:
        function = layer.config.get("activation", "linear")
        usual = ("relu",) if layer.kind == "Activation" else ("linear",)
        if function not in usual:
            raise refused(path, layer, f"inside the network has activation {function}")
    _compare(path, layers)
    return fields


def _compare(path: str | Path, layers: list[Layer]) -> None:
    """Refuses the first layer, from the image up, that is not as in this network."""
    operations, _ = _network()
    for number, layer in sorted(_counterparts(path, layers).items()):
        kind, arguments, _ = operations[number]
        if layer.kind != kind:
            raise _differs(path, layer, f"is where InceptionV3 has {kind}")
        for name, expected in arguments.items():
            found = layer.config[name]
            if isinstance(expected, tuple):
                found = (found, found) if isinstance(found, int) else tuple(found)
            if found != expected:
                raise _differs(path, layer, f"has {name}={found!r}, InceptionV3 {expected!r}")


def _counterparts(path: str | Path, layers: list[Layer]) -> dict[int, Layer]:
    """The file's convolutions and pools by the positions of their counterparts in this network.

    Raises:
      WeightsError: If a layer does not take the same outputs in the same order as here.
    """
    operations, ends = _network()
    inside = {layer.name: layer for layer in layers}
    found: dict[int, Layer] = {}
    pending = [(layers[-1], ends)]
    while pending:
        reader, numbers = pending.pop()
        sources = list(_sources(path, reader, inside))
        same = len(sources) == len(numbers)
        for number, source in zip(numbers, sources, strict=False):
            if number not in found:
                found[number] = source
                pending.append((source, operations[number].reads))
            same = same and found[number] is source
        if not same:
            names = ", ".join(source.name for source in sources) or "the image"
            raise _differs(path, reader, f"takes {names}, not what InceptionV3 takes in its place")
    return found


def _sources(path: str | Path, reader: Layer, inside: Mapping[str, Layer]) -> Iterator[Layer]:
    """The convolutions and pools whose outputs a layer takes, side by side in this order."""
    for name in reader.inputs:
        if name not in inside:  # the network's input
            continue
        layer = inside[name]
        if layer.kind == "Concatenate" or is_idle(layer):
            yield from _sources(path, layer, inside)
        elif layer.kind in (_KINDS["max pool"], _KINDS["average pool"]):
            yield layer
        else:
            yield _convolution(path, layer, inside)


def _convolution(path: str | Path, last: Layer, inside: Mapping[str, Layer]) -> Layer:
    """The convolution of which a layer is the ReLU.

    Raises:
      WeightsError: If the layer is anything else.
    """
    normalization = _before(last, inside)
    convolution = _before(normalization, inside)
    changed = last.config.get("max_value") is not None or any(
        last.config.get(name) for name in ("negative_slope", "threshold")
    )
    kinds = [layer.kind for layer in (last, normalization) if layer]
    plain = kinds[0] in _RELUS and kinds[1:] == ["BatchNormalization"] and not changed
    if not plain or convolution is None or convolution.kind != "Conv2D":
        raise _differs(
            path, last, "is where InceptionV3 has the plain ReLU of a batch-normalized convolution"
        )
    return convolution


def _before(layer: Layer | None, inside: Mapping[str, Layer]) -> Layer | None:
    """The layer inside the network whose output a layer takes, past those that do nothing."""
    found = inside.get(layer.inputs[0]) if layer else None
    return _before(found, inside) if found and is_idle(found) else found


def _differs(path: str | Path, layer: Layer, what: str) -> WeightsError:
    return WeightsError(f"{path}: {layer} inside the network {what}")


@cache
def _network() -> tuple[list[_Operation], tuple[int, ...]]:
    """The convolutions and pools here, and the positions of those that the features consist of."""
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    model = Inception(aux_head="none", fuse=False)
    layers, _ = trace(model.init_with_output, jax.random.key(0), image)
    operations: list[_Operation] = []
    ends: tuple[int, ...] = ()
    for _, stage in groupby(layers[:-1], key=lambda layer: layer.stage):  # without the logits
        start, own = len(operations), list(stage)
        for layer in own:
            size = "kernel_size" if layer.kind == "conv" else "pool_size"
            arguments: dict[str, Any] = {size: layer.kernel, "strides": (layer.stride,) * 2}
            if layer.kernel != (1, 1):
                arguments["padding"] = "same" if layer.padded else "valid"
                if layer.kind == "conv":
                    arguments["dilation_rate"] = (1, 1)
            reads = tuple(start + position for position in layer.inputs) or ends
            operations.append(_Operation(_KINDS[layer.kind], arguments, reads))
        inner = {position for layer in own for position in layer.inputs}
        ends = tuple(start + position for position in range(len(own)) if position not in inner)
    return operations, ends
