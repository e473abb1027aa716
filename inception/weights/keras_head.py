"""What a Keras model does after the network: how it pools the features, its head, and its loss."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inception.weights.files import WeightsError
from inception.weights.keras_graph import Layer, is_idle, refused


@dataclass
class Head:
    """What follows the network.

    Attributes:
      found: Whether there is a Dense layer.
      activation: What follows its outputs, "" if nothing does.
      model: Fields of `Inception`.
    """

    found: bool = False
    activation: str = ""
    model: dict[str, Any] = field(default_factory=dict)


def read_head(path: str | Path, layers: list[Layer], image_size: int) -> Head:
    """Reads the layers that follow the network.

    Args:
      path: The file, for messages.
      layers: In their order.
      image_size: Of the network's input, 0 where it is not known.

    Raises:
      WeightsError: If they are not a pool of averages and at most one Dense layer.
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
            raise refused(path, layer, "follows the network")
    return head


def _pooling(
    path: str | Path, layers: list[Layer], image_size: int
) -> Iterator[tuple[Layer, bool]]:
    """The layers, and whether each makes the average of every feature.

    Raises:
      WeightsError: If the features are pooled in another way.
    """
    pooled, average = False, False  # average: pooled, but height and width are still there
    for layer in layers:
        kind = layer.kind
        if kind in ("GlobalMaxPooling2D", "MaxPooling2D"):
            raise WeightsError(
                f"{path}: {layer} takes the largest value of every feature, and this network "
                "averages. Train the head again after GlobalAveragePooling2D"
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
    """Height and width of the last features: 8 for 299."""
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
            f"{path}: {layer} ends the network by {function}, and classes have one softmax or "
            "sigmoid. Save a model whose head is one of them"
        )
    return function


def activation_of_loss(loss: Any) -> str:
    """What a head without an activation was trained as, "" if its loss does not say."""
    name = str(loss).lower()
    if "binary" in name:
        return "sigmoid"
    return "softmax" if "crossentropy" in name else ""
