"""Compares our network with a reference implementation, endpoint by endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from inception.weights import reference
from inception.weights.pretrained import Pretrained

TOLERANCE = 1e-5  # relative to the largest value of an endpoint; float32 on a CPU


@dataclass(frozen=True)
class Difference:
    """The difference between our values of an endpoint and theirs.

    Attributes:
      endpoint: Name of the endpoint.
      shape: Shape of our array.
      largest: Largest absolute difference.
      relative: Largest absolute difference divided by the largest absolute value of theirs or, if
        that is larger, by the scale of its rounding (`logit_scale`).
    """

    endpoint: str
    shape: tuple[int, ...]
    largest: float
    relative: float


def compare(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], scales: Mapping[str, float] | None = None
) -> list[Difference]:
    """The differences of all endpoints that both have, in the order of theirs."""
    return [
        difference(name, np.asarray(ours[name]), np.asarray(array), (scales or {}).get(name, 0.0))
        for name, array in theirs.items()
        if name in ours
    ]


def difference(name: str, ours: np.ndarray, theirs: np.ndarray, scale: float = 0.0) -> Difference:
    """The difference of two arrays; infinite if the shapes differ or a value is not finite."""
    finite = np.isfinite(ours).all() and np.isfinite(theirs).all()
    if ours.shape != theirs.shape or not finite:
        return Difference(name, ours.shape, np.inf, np.inf)
    largest = float(np.abs(ours - theirs).max())
    scale = max(float(np.abs(theirs).max()), scale, 1e-30)
    return Difference(name, ours.shape, largest, largest / scale)


def logit_scale(variables: Mapping[str, Any], endpoints: Mapping[str, Any]) -> float:
    """The largest sum of a logit's absolute terms, to which its rounding is relative.

    The logits of a head that has hardly been trained are small differences of large terms.
    """
    if "Logits" not in variables["params"] or "pooled" not in endpoints:
        return 0.0
    kernel = np.asarray(variables["params"]["Logits"]["kernel"])
    return float((np.abs(np.asarray(endpoints["pooled"])) @ np.abs(kernel)).max())


def verify(
    pretrained: Pretrained,
    path: str | Path,
    batch: int = 2,
    *,
    ema: bool = True,
    exact_padding: bool = False,
) -> list[Difference]:
    """Compares weights imported from a file with the source's own network on the same file.

    Both see the same random images, of the size that the weights expect. A Keras file of a whole
    model is run as that model, with its own scaling, pooling and head.

    Args:
      pretrained: The imported weights.
      path: The file.
      batch: Number of images.
      ema: Whether the running averages of the weights were imported.
      exact_padding: Whether PyTorch's network leaves the padding out of its average pools.

    Raises:
      WeightsError: If the source's library is not installed.
    """
    size = pretrained.preprocessing.image_size
    images = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    theirs = reference.endpoints(
        pretrained.source,
        path,
        images,
        pretrained.preprocessing,
        ema=ema,
        exact_padding=exact_padding,
    )
    ours = our_endpoints(pretrained.model, pretrained.variables, images)
    if "probabilities" in theirs:
        function = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[pretrained.activation]
        ours["probabilities"] = function(ours["logits"])
    return compare(ours, theirs, {"logits": logit_scale(pretrained.variables, ours)})


def our_endpoints(
    model: Any, variables: Any, images: np.ndarray, aux_head: bool = True
) -> dict[str, Any]:
    """All endpoints at inference, with "logits", and "aux_logits" if the auxiliary head runs."""

    @jax.jit
    def forward(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, aux_head=aux_head)

    logits, endpoints = forward(variables, images)
    return endpoints | {"logits": logits}


def table(differences: list[Difference]) -> str:
    """The differences as a table, one line per endpoint."""
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
