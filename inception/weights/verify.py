"""Compares our network with the original library's, endpoint by endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from inception.weights import originals
from inception.weights.pretrained import Pretrained

TOLERANCE = 1e-5  # of the largest value of an endpoint; float32 on a CPU


@dataclass(frozen=True)
class Difference:
    """Between an endpoint of ours and of theirs.

    Attributes:
      endpoint: its name.
      shape: of the array.
      largest: absolute difference.
      relative: to the largest absolute value of theirs.
    """

    endpoint: str
    shape: tuple[int, ...]
    largest: float
    relative: float


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """The differences of all arrays that both have, in the order of theirs."""
    return [
        difference(name, np.asarray(ours[name]), np.asarray(array))
        for name, array in theirs.items()
        if name in ours
    ]


def difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Of two arrays; infinite where the shapes differ or a value is not finite."""
    finite = np.isfinite(ours).all() and np.isfinite(theirs).all()
    if ours.shape != theirs.shape or not finite:
        return Difference(name, ours.shape, np.inf, np.inf)
    largest = float(np.abs(ours - theirs).max())
    return Difference(name, ours.shape, largest, largest / max(float(np.abs(theirs).max()), 1e-30))


def verify(
    pretrained: Pretrained, path: str | Path, batch: int = 2, *, ema: bool = True
) -> list[Difference]:
    """Compares the network read from a file with the original library's that read the same file.

    Both see the same random images, of the size that the weights are for. A Keras file that holds
    a whole model is run as that model, with its own scaling, pooling and head.

    Raises:
      WeightsError: when the original library is not installed.
    """
    size = pretrained.preprocessing.image_size
    images = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    theirs = originals.endpoints(pretrained.source, path, images, pretrained.preprocessing, ema=ema)
    ours = our_endpoints(pretrained.model, pretrained.variables, images)
    if "probabilities" in theirs:
        function = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[pretrained.activation]
        ours["probabilities"] = function(ours["logits"])
    return compare(ours, theirs)


def our_endpoints(
    model: Any, variables: Any, images: np.ndarray, aux_head: bool = True
) -> dict[str, Any]:
    """All endpoints at inference, "logits" among them, and "aux_logits" if there is a side head."""

    @jax.jit
    def forward(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, aux_head=aux_head)

    logits, endpoints = forward(variables, images)
    return endpoints | {"logits": logits}


def table(differences: list[Difference]) -> str:
    """As text, a line per endpoint."""
    rows = [("endpoint", "shape", "largest difference", "relative")]
    rows += [
        (d.endpoint, "x".join(map(str, d.shape)), f"{d.largest:.1e}", f"{d.relative:.1e}")
        for d in differences
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}"
        for a, b, c, d in rows
    )
