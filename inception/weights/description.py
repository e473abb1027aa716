"""What a weights file states beyond its tensors, and the defaults for what it does not state.

keras_config.py and timm_config.py read it. The caller's values take precedence over the file's, and
the file's over the defaults of its source. Every import records which of them each field came from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from inception.data.preprocessing import Preprocessing
from inception.weights.files import Tensors, WeightsError

ACTIVATIONS = ("softmax", "sigmoid")
ASSUMED, GIVEN = "assumed", "given"
# Numbers of outputs that are not exclusive: yes against no, and the labels of Open Images (2016).
_SIGMOIDS = (1, 6012)


@dataclass(frozen=True)
class Description:
    """What a file states; everything else is empty.

    Attributes:
      where: Name of the file that states it.
      preprocessing: Fields of `Preprocessing`.
      model: Fields of `Inception`.
      activation: "softmax" or "sigmoid" after the logits, "" if not stated.
      labels: Names of the classes.
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
        """The tensors without those that belong to the preprocessing."""
        kept = {name: s for name, s in tensors.shapes.items() if name not in self.tensors}
        return replace(tensors, shapes=kept)


def settle(
    path: str | Path, usual: Preprocessing, described: Description, given: Mapping[str, Any]
) -> tuple[Preprocessing, dict[str, str]]:
    """The preprocessing of imported weights, and the origin of each of its fields.

    Args:
      path: The file, for messages.
      usual: The preprocessing that the file's source uses by default.
      described: What the file states.
      given: Fields of `Preprocessing` from the caller.

    Returns:
      The preprocessing, and by "preprocessing.FIELD" a file's name, "given" or "assumed".

    Raises:
      WeightsError: If a value is out of range.
    """
    stated = described.preprocessing
    try:
        preprocessing = replace(usual, **{**stated, **given})
    except ValueError as error:
        origins = filter(None, (described.where, "the values given" if given else ""))
        raise WeightsError(f"{path}: {error} (from {' and '.join(origins)})") from error
    return preprocessing, {
        f"preprocessing.{name}": GIVEN
        if name in given
        else described.where
        if name in stated
        else ASSUMED
        for name in (field.name for field in fields(Preprocessing))
    }


def settle_activation(given: str, described: Description, num_classes: int) -> tuple[str, str]:
    """The activation after the logits, and its origin as in `settle`.

    A single class defaults to a sigmoid: its logit is that of yes against no. So do the 6012 of
    slim's Open Images checkpoint (2016), whose images have several labels.

    Raises:
      WeightsError: If `given` is neither "" nor one of `ACTIVATIONS`.
    """
    if given and given not in ACTIVATIONS:
        raise WeightsError(f"activation={given!r} is unknown. Use one of {ACTIVATIONS}")
    for value, where in ((given, GIVEN), (described.activation, described.where)):
        if value:
            return value, where
    return ("sigmoid" if num_classes in _SIGMOIDS else "softmax"), ASSUMED


def square(path: str | Path, where: str, sides: Iterable[Any]) -> int:
    """The side in pixels of the square images that a file states for its network.

    Raises:
      WeightsError: If they are not square.
    """
    height, width = sides
    if height != width or not isinstance(height, int):
        raise WeightsError(
            f"{path}: {where} states images of {height}x{width}, but here images are square. "
            "Pass --image_size (in Python, preprocessing={'image_size': ...})"
        )
    return height
