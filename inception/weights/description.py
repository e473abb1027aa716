"""What a file of weights says about itself beyond its tensors, and what is assumed otherwise.

keras_config.py and timm_config.py read it. What the caller gives wins over what the file says, and
what the file says over what its source usually is. An import records which it was for every field.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from inception.data.preprocessing import Preprocessing
from inception.weights.files import Tensors, WeightsError

ACTIVATIONS = ("softmax", "sigmoid")
ASSUMED, GIVEN = "assumed", "given"


@dataclass(frozen=True)
class Description:
    """What is stated; a field that is missing is not.

    Attributes:
      where: The name of the file that states it.
      preprocessing: Fields of `Preprocessing`.
      model: Fields of `Inception`.
      activation: "softmax", "sigmoid" or "" of what follows the logits.
      labels: The names of the classes.
      tensors: Names of tensors that belong to the preprocessing, not to the network.
      scales_inside: Whether the file's own model scales pixels, so that it takes 0 to 255.
    """

    where: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    activation: str = ""
    labels: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    scales_inside: bool = False

    def without_its(self, tensors: Tensors) -> Tensors:
        """The tensors that belong to the network."""
        kept = {name: s for name, s in tensors.shapes.items() if name not in self.tensors}
        return replace(tensors, shapes=kept)


def settle(
    path: str | Path, usual: Preprocessing, described: Description, given: Mapping[str, Any]
) -> tuple[Preprocessing, dict[str, str]]:
    """The preprocessing of imported weights, and where each of its fields comes from.

    Args:
      path: The file, for messages.
      usual: The preprocessing of the file's source.
      described: What the file states.
      given: Fields of `Preprocessing` that the caller gives.

    Returns:
      The preprocessing, and by "preprocessing.FIELD" the name of a file, "given" or "assumed".

    Raises:
      WeightsError: If a value is out of range.
    """
    stated = described.preprocessing
    try:
        preprocessing = replace(usual, **{**stated, **given})
    except ValueError as error:
        names = " and ".join(filter(None, (described.where, "what was given" if given else "")))
        raise WeightsError(f"{path}: {error}, as {names} would have it") from error
    return preprocessing, {
        f"preprocessing.{name}": GIVEN
        if name in given
        else described.where
        if name in stated
        else ASSUMED
        for name in (field.name for field in fields(Preprocessing))
    }


def settle_activation(given: str, described: Description, num_classes: int) -> tuple[str, str]:
    """What follows the logits, and where that comes from, as in `settle`.

    One class has no softmax: its logit is that of yes against no.

    Raises:
      WeightsError: If `given` is neither "" nor of `ACTIVATIONS`.
    """
    if given and given not in ACTIVATIONS:
        raise WeightsError(f"activation={given!r} is not known: it is one of {ACTIVATIONS}")
    for value, where in ((given, GIVEN), (described.activation, described.where)):
        if value:
            return value, where
    return ("sigmoid" if num_classes == 1 else "softmax"), ASSUMED


def square(path: str | Path, where: str, sides: Iterable[Any]) -> int:
    """The side of the square images that a file says its network takes.

    Raises:
      WeightsError: If they are not square.
    """
    height, width = sides
    if height != width or not isinstance(height, int):
        raise WeightsError(
            f"{path}: {where} says that images are {height}x{width}, and here they are square. "
            "Give --image_size (in Python, preprocessing={'image_size': ...})"
        )
    return height
