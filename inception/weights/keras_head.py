"""The end of a Keras model, after the network: pooling of the features, head and loss."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inception.weights.files import WeightsError
from inception.weights.keras_graph import Layer, is_idle, refused


@dataclass
class Head:
    """The head of a Keras model.

    Attributes:
      found: Whether there is a Dense layer.
      activation: Activation after its outputs, "" without one.
      model: Fields of `Inception` that the head states.
    """

    found: bool = False
    activation: str = ""
    model: dict[str, Any] = field(default_factory=dict)


def read_head(path: str | Path, layers: list[Layer], image_size: int) -> Head:
    """Reads the layers after the network.

    Args:
      path: The file, for messages.
      layers: Layers in the order of computation.
      image_size: Size in pixels of the network's input, 0 if unknown.

    Raises:
      WeightsError: If they are anything but an average pool and at most one Dense layer.
    """
    head, pooled = Head(), False
    dense = [layer for layer in layers if layer.kind == "Dense"]
    if len(dense) > 1:
        raise refused(path, dense[1], "is a second Dense layer")
    for layer, pools in _pooling(path, layers, image_size):
        if pools:
            pooled = True
        elif layer.kind == "Dropout" and pooled and not head.found:
            head.model["dropout_rate"] = float(layer.config["rate"])
        elif layer.kind == "Dense" and pooled:
            head.found, head.activation = True, _activation(path, layer, head)
        elif layer.kind in ("Activation", "Softmax") and head.found and not is_idle(layer):
            head.activation = _activation(path, layer, head)
        elif not is_idle(layer):
            raise refused(path, layer, "is after the network")
    return head


def _pooling(
    path: str | Path, layers: list[Layer], image_size: int
) -> Iterator[tuple[Layer, bool]]:
    """The layers, each with whether it completes the global average pool.

    Raises:
      WeightsError: If the features are pooled in another way.
    """
    pooled, average = False, False  # average: pooled to 1x1, but not yet flattened
    for layer in layers:
        kind = layer.kind
        if kind in ("GlobalMaxPooling2D", "MaxPooling2D"):
            raise WeightsError(
                f"{path}: {layer} takes the maximum of every feature, but this network averages. "
                "Train the head again after GlobalAveragePooling2D"
            )
        average = average or (
            kind == "AveragePooling2D" and {*layer.config["pool_size"]} == {last_grid(image_size)}
        )
        flattens = kind == "Flatten" and (average or pooled)
        pools = kind == "GlobalAveragePooling2D" or flattens
        if pools or kind != "AveragePooling2D" or not average:
            yield layer, pools
        pooled = pooled or pools


def last_grid(image_size: int) -> int:
    """The height and width of the last features for an image size: 8 for 299."""
    size = (image_size - 3) // 2 + 1 - 2
    for smaller in (0, 2, 0, 0):  # the pools and reductions, and a convolution's border
        size = (size - smaller - 3) // 2 + 1
    return size


def _activation(path: str | Path, layer: Layer, head: Head) -> str:
    function = "softmax" if layer.kind == "Softmax" else layer.config["activation"]
    if isinstance(function, dict):  # Keras 3's form of some functions
        function = function.get("config")
    if function == "linear":
        return ""
    if head.activation or function not in ("softmax", "sigmoid"):
        raise WeightsError(
            f"{path}: {layer} has activation {function}, but a head ends in one softmax or "
            "sigmoid. Save a model with one of them"
        )
    return function


def activation_of_loss(loss: Any) -> str:
    """The activation that a loss implies for a head without one, "" if it does not imply any."""
    name = str(loss).lower()
    if "binary" in name:
        return "sigmoid"
    return "softmax" if "crossentropy" in name else ""
