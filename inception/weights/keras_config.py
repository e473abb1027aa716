"""What a Keras file states about the network and its input: size, scaling, pooling, head, loss.

The network's 94 convolutions divide the model's layers into those before the network, which turn
pixels into its input, those inside it, and those after it. A layer that changes the result and has
no equivalent here is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inception.data.preprocessing import INTERPOLATIONS
from inception.weights import keras_graph, names
from inception.weights.description import Description, square
from inception.weights.files import Tensors, WeightsError
from inception.weights.keras_body import INSIDE, read_body
from inception.weights.keras_graph import Graph, Layer, is_idle, reading, refused
from inception.weights.keras_head import activation_of_loss, read_head

_CONVOLUTIONS = len(names.KERAS3_PLACES)
_OPERATIONS = {  # by NumPy's names, as in Keras 3, and by TensorFlow's, as in Keras 2
    **dict.fromkeys(("TrueDivide", "Divide", "math.truediv", "math.divide"), np.divide),
    **dict.fromkeys(("Subtract", "math.subtract"), np.subtract),
    **dict.fromkeys(("Multiply", "math.multiply"), np.multiply),
    **dict.fromkeys(("Add", "math.add", "__operators__.add"), np.add),
}
_MEAN, _VARIANCE, _COUNT = (f"normalization/{part}" for part in ("mean", "variance", "count"))
_EPSILON = 1e-7  # Keras's lower bound of a standard deviation
# The distance of black and white after a scaling that is meant for pixels of 0 to 255.
_CONTRAST = (0.2, 30.0)


def describe(path: str | Path, tensors: Tensors, given: Mapping[str, Any]) -> Description:
    """What the file states.

    Args:
      path: The file.
      tensors: Its tensors, by the names of `names.KERAS`.
      given: Fields of `Preprocessing` from the caller; the file's statements on them are not read.

    Raises:
      WeightsError: If a layer, which the message names, has no equivalent here.
    """
    where = Path(path).name
    graph, adapted = keras_graph.read(path), _Adapted.of(tensors)
    own = tuple(name for name in (_MEAN, _VARIANCE, _COUNT) if name in tensors.shapes)
    with reading(path):
        trunk = graph and _trunk(path, graph)
    if not (graph and trunk):  # weights alone, or another network: its tensors will not fit
        fields = {}
        if adapted:
            scaling = _Scaling(np.ones(3), np.zeros(3)).normalized(adapted.mean, adapted.variance)
            fields = scaling.fields(path, given)
        return Description(where, fields, tensors=own)
    before, inside, after = trunk
    with reading(path):
        scaling, fields = _read_before(path, before, adapted, given)
        model = read_body(path, inside)
        head = read_head(path, after, fields.get("image_size", 0))
    return Description(
        where,
        {name: value for name, value in fields.items() if name not in given},
        model | head.model,
        head.activation or activation_of_loss(graph.loss) if head.found else "",
        tensors=own,
        scales_inside=scaling.any,
    )


def _trunk(path: str | Path, graph: Graph) -> tuple[list[Layer], list[Layer], list[Layer]] | None:
    """The layers before the network, inside it and after it; None if it is another network."""
    above, layers = keras_graph.ancestors(graph), graph.layers
    convolutions = {name for name, layer in layers.items() if layer.kind == "Conv2D"}
    firsts = [name for name in convolutions if not above[name] & convolutions]
    if len(convolutions) != _CONVOLUTIONS or len(firsts) != 1:
        return None
    inputs = [layer for layer in layers.values() if not layer.inputs]
    if len(inputs) != 1 or len(graph.outputs) != 1:
        raise WeightsError(
            f"{path}: its model has {len(inputs)} inputs and {len(graph.outputs)} outputs, this "
            "network one of each. Save the part that maps an image to its classes"
        )
    before = _chain(layers, *layers[firsts[0]].inputs)
    if before[-1] is not inputs[0]:
        raise refused(path, before[-1], "is before the network")
    after = _chain(layers, graph.outputs[0])
    end = after.pop()
    whole = above[end.name] - {layer.name for layer in before}
    inside = [layer for name, layer in layers.items() if name in whole] + [end]
    foreign = [layer for layer in inside if layer.kind not in INSIDE and not is_idle(layer)]
    if end.kind != "Concatenate" or not convolutions <= whole or foreign:
        raise refused(path, foreign[0] if foreign else end, "is inside the network or after it")
    return before[::-1], inside, after[::-1]


def _chain(layers: Mapping[str, Layer], name: str) -> list[Layer]:
    """A layer, the one before it, and so on to the first that does not have exactly one input."""
    chain = [layers[name]]
    while len(chain[-1].inputs) == 1:
        chain.append(layers[chain[-1].inputs[0]])
    return chain


@dataclass(frozen=True)
class _Adapted:
    """The statistics that the file's Normalization layer has learned, per channel."""

    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, tensors: Tensors) -> "_Adapted | None":
        if not {_MEAN, _VARIANCE} <= tensors.shapes.keys():
            return None
        return cls(*(np.asarray(tensors.read(name), np.float64) for name in (_MEAN, _VARIANCE)))


@dataclass(frozen=True)
class _Scaling:
    """The network's input as factor * x + offset, per channel of the model's input x."""

    factor: np.ndarray
    offset: np.ndarray
    any: bool = False

    def then(self, operation: Any, constant: Any) -> "_Scaling":
        """The scaling followed by an operation with one number, or one per channel."""
        offset = operation(self.offset, constant)
        scales = operation in (np.multiply, np.divide)
        factor = operation(self.factor, constant) if scales else self.factor
        return _Scaling(np.broadcast_to(factor, 3), np.broadcast_to(offset, 3), True)

    def normalized(self, mean: Any, variance: Any) -> "_Scaling":
        """The scaling followed by Keras's Normalization."""
        deviation = np.maximum(np.sqrt(np.reshape(variance, -1)), _EPSILON)
        return self.then(np.subtract, np.reshape(mean, -1)).then(np.divide, deviation)

    def fields(self, path: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
        """The mean and standard deviation of pixels between 0 and 1, as `Preprocessing` has them.

        Raises:
          WeightsError: If the model does not take pixels of 0 to 255.
        """
        low, high = _CONTRAST
        contrast = 255 * self.factor
        if {"mean", "std"} <= given.keys():
            return {name: given[name] for name in ("mean", "std")}
        if not ((low <= contrast) & (contrast <= high)).all():
            raise WeightsError(
                f"{path}: its layers put black and white {contrast.tolist()} apart, so its input "
                "is not pixels from 0 to 255. Pass the whole scaling as --mean and --std, of "
                "pixels between 0 and 1"
            )
        std = 1 / contrast
        values = {"mean": -self.offset * std, "std": std}
        return {name: tuple((value.round(9) + 0.0).tolist()) for name, value in values.items()}


def _read_before(
    path: str | Path, layers: list[Layer], adapted: _Adapted | None, given: Mapping[str, Any]
) -> tuple[_Scaling, dict[str, Any]]:
    """The scaling and the fields of `Preprocessing` from the layers before the network."""
    scaling = _Scaling(np.ones(3), np.zeros(3))
    fields: dict[str, Any] = {}
    sizes: list[tuple[str, Any]] = []  # (layer that states it, (height, width)), resizing last
    for layer in layers:
        config = layer.config
        shape = config.get("batch_shape") or config.get("batch_input_shape") or (None,) * 4
        if layer.kind == "InputLayer" and all(shape[1:3]):
            sizes.append((str(layer), tuple(shape[1:3])))
        elif layer.kind == "Rescaling":
            scaling = scaling.then(np.multiply, _numbers(config["scale"]))
            scaling = scaling.then(np.add, _numbers(config.get("offset", 0.0)))
        elif layer.kind == "Normalization" and not config.get("invert"):
            scaling = scaling.normalized(*_statistics(path, layer, adapted))
        elif layer.kind in _OPERATIONS and len(layer.inputs) == len(layer.constants) == 1:
            scaling = scaling.then(_OPERATIONS[layer.kind], _numbers(layer.constants[0]))
        elif layer.kind == "Resizing" and not _crops(config):
            sizes.append((str(layer), (config["height"], config["width"])))
            fields |= {"method": "resize", "interpolation": config["interpolation"]}
        elif not is_idle(layer):
            raise refused(path, layer, "is before the network")
    unknown = fields.get("interpolation", "bilinear") not in INTERPOLATIONS
    if unknown and "interpolation" not in given:
        raise WeightsError(
            f"{path}: interpolation {fields['interpolation']!r} does not exist here. Pass "
            f"--interpolation, one of {INTERPOLATIONS}"
        )
    if sizes and "image_size" not in given:
        if len({size for _, size in sizes}) > 1:
            raise WeightsError(
                f"{path}: {' and '.join(f'{who} has {h}x{w}' for who, (h, w) in sizes)}, but here "
                "an image is resized once. Pass --image_size"
            )
        fields["image_size"] = square(path, *sizes[-1])
    return scaling, fields | (scaling.fields(path, given) if scaling.any else {})


def _crops(config: Mapping[str, Any]) -> bool:
    return bool(config.get("crop_to_aspect_ratio") or config.get("pad_to_aspect_ratio"))


def _numbers(value: Any) -> Any:
    """A number or numbers as an array; Keras 3 wraps NumPy's in a dictionary."""
    plain = value["config"]["value"] if isinstance(value, dict) else value
    return None if plain is None else np.asarray(plain, float)


def _statistics(path: str | Path, layer: Layer, adapted: _Adapted | None) -> tuple[Any, Any]:
    """The mean and variance that a Normalization layer was given or has learned."""
    mean, variance = (_numbers(layer.config.get(name)) for name in ("mean", "variance"))
    if (mean is None or variance is None) and adapted:
        mean, variance = adapted.mean, adapted.variance
    if mean is None or variance is None or {np.size(mean), np.size(variance)} - {1, 3}:
        raise WeightsError(
            f"{path}: {layer} has no mean and variance for the three channels. Save the model "
            "after `adapt`, with a single Normalization layer"
        )
    return mean, variance
