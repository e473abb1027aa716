"""Imports a weights file of a known source; every tensor in it must be accounted for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from inception.data.preprocessing import Preprocessing
from inception.network.model import Inception
from inception.weights import files, keras_config, names, timm_config
from inception.weights.description import (
    ASSUMED,
    GIVEN,
    Description,
    settle,
    settle_activation,
)
from inception.weights.files import Shapes, Tensors, WeightsError
from inception.weights.labels import imagenet_labels
from inception.weights.pretrained import Pretrained, shapes_of
from inception.weights.sources import (
    FID_CLASSES,
    SOURCES,
    Source,
    ambiguous_tag,
    recognize,
    timm_tag,
)
from inception.weights.unwrapping import unwrap

_LOGITS = "params/Logits/bias"
_MAX_CLASSES = 100_000
_IMAGENET, _WITH_BACKGROUND = 1000, 1001


def import_weights(
    path: str | Path,
    source: str = "auto",
    *,
    ema: bool = True,
    background: bool = False,
    labels: Sequence[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    activation: str = "",
) -> Pretrained:
    """Reads a weights file of any source.

    Args:
      path: The file, as in `files.open_tensors`.
      source: One of `sources.SOURCES`; "timm" also reads the tag in the file's path or in the
        config.json next to it; "auto" recognizes the source.
      ema: Whether to use the running averages of the weights, if the file has them.
      background: Whether to keep class 0 of 1001.
      labels: Names of the classes; by default those that the file states, or ImageNet's for 1000.
      preprocessing: Fields of `Preprocessing` that take precedence over the file's.
      activation: "softmax" or "sigmoid", which takes precedence over the file's.

    Returns:
      The weights. A file without a head (Keras's include_top=False, or an Identity in its place)
      gives a network of one class whose logit is 0, for its features or for a new head.

    Raises:
      WeightsError: If the file cannot be read, or holds anything but this network.
    """
    given = dict(preprocessing or {})
    with files.open_tensors(path) as wrapped:
        tensors, chosen = unwrap(wrapped, path, ema)
        name = _source_name(source, tensors, path)
        origin = SOURCES[name]
        described = _describe(name, tensors, path, given)
        if described.model:
            origin = replace(origin, model={**origin.model, **described.model})
        model, arrays, has_head = _read(origin, described.without_its(tensors), path)
    if origin.background and model.num_classes == _WITH_BACKGROUND and not background:
        model = model.clone(num_classes=model.num_classes - 1)
        heads = origin.naming.heads
        arrays = {ours: a[..., 1:] if ours in heads else a for ours, a in arrays.items()}
    scaling, provenance = settle(path, origin.preprocessing, described, given)
    provenance |= {f"model.{field}": described.where for field in described.model}
    model, arrays, left_out = _without_misfit(model, arrays, scaling.image_size)
    named, provenance["labels"] = _labels(labels, described, model.num_classes, path)
    function, provenance["activation"] = "softmax", "no head"
    if has_head:
        settled = settle_activation(activation, described, model.num_classes)
        function, provenance["activation"] = settled
    return Pretrained(
        model=model,
        variables=unflatten_dict(arrays, sep="/"),
        preprocessing=scaling,
        labels=named,
        source=name,
        sha256=files.sha256(path),
        activation=function,
        provenance=chosen | provenance | left_out,
    )


def _describe(
    source: str, tensors: Tensors, path: str | Path, given: Mapping[str, Any]
) -> Description:
    """What the file, or the config.json next to it, states."""
    if source == "keras":
        return keras_config.describe(path, tensors, given)
    if source.partition(".")[0] != "timm":
        return Description()
    described = timm_config.describe(path, tensors.shapes, given)
    if source == "timm" and not {"mean", "std"} <= {*described.preprocessing, *given}:
        raise ambiguous_tag(path)
    return described


def _without_misfit(
    model: Inception, arrays: dict[str, np.ndarray], image_size: int
) -> tuple[Inception, dict[str, np.ndarray], dict[str, str]]:
    """Drops an auxiliary head whose layers are for larger images; also returns a note on it."""
    if image_size == Preprocessing().image_size:
        return model, arrays, {}
    try:
        shapes = shapes_of(model, image_size)
    except ValueError as error:
        raise WeightsError(f"image_size={image_size}: {error}") from error
    if all(array.shape == shapes[name] for name, array in arrays.items()):
        return model, arrays, {}
    kept = {name: array for name, array in arrays.items() if "/AuxLogits/" not in name}
    why = f"left out: the file's auxiliary head is too large for images of {image_size}"
    return model.clone(aux_head="none"), kept, {"model.aux_head": why}


def _source_name(source: str, tensors: Tensors, path: str | Path) -> str:
    if source == "auto":
        return recognize(tensors, path)
    if source == "timm":
        tag = timm_tag(path)
        return f"timm.{tag}" if tag else "timm"
    if source in SOURCES:
        return source
    raise WeightsError(f"source {source!r} is unknown. Use auto, {', '.join(SOURCES)}")


def _read(
    source: Source, tensors: Tensors, path: str | Path
) -> tuple[Inception, dict[str, np.ndarray], bool]:
    """The network, its arrays by our names, and whether the file has a head."""
    naming = source.naming
    found = {name: s for name, s in tensors.shapes.items() if not re.search(naming.extras, name)}
    has_head = any(naming.heads[head] in found for head in names.KERAS.heads)
    model = _model(source, found, has_head, path)
    shapes = shapes_of(model)
    theirs = names.table(naming, [name for name in shapes if has_head or name not in naming.heads])
    expected = {
        name: names.to_source(naming, ours, np.empty(shapes[ours], bool)).shape
        for ours, name in theirs.items()
    }
    files.check_tensors(path, found, expected, {name: ours for ours, name in theirs.items()})
    arrays = {name: np.zeros(shapes[name], np.float32) for name in shapes.keys() - theirs.keys()}
    for ours, name in theirs.items():
        arrays[ours] = names.to_ours(naming, ours, _floats(tensors.read(name), name, path))
        if ours.endswith("/var") and arrays[ours].min() < 0:
            raise WeightsError(f"{path}: {name} has a negative variance. Get the file again")
    return model, arrays, has_head


def _model(source: Source, found: Shapes, has_head: bool, path: str | Path) -> Inception:
    """The source's network with the file's number of classes and auxiliary head."""
    naming = source.naming
    shape = found.get(naming.heads[_LOGITS], (_IMAGENET,)) if has_head else (1,)
    if not (len(shape) == 1 and 1 <= shape[0] <= _MAX_CLASSES):
        raise WeightsError(
            f"{path}: {naming.heads[_LOGITS]} has shape {shape}. A head's bias is a vector of 1 to "
            f"{_MAX_CLASSES} classes"
        )
    aux_head = any(name.startswith(naming.aux_head) for name in found) and naming.aux_head
    if source is SOURCES["fid"] and (shape[0] != FID_CLASSES or aux_head):
        raise WeightsError(
            f"{path} has {shape[0]} classes{' and an auxiliary head' if aux_head else ''}, but "
            f"FID's network has {FID_CLASSES} and none. Name another source"
        )
    return Inception(shape[0], aux_head="bn" if aux_head else "none", **source.model)


def _floats(array: np.ndarray, name: str, path: str | Path) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WeightsError(f"{path}: {name} is {array.dtype}. Weights are floating-point numbers")
    floats = array.astype(np.float32)
    if not np.isfinite(floats).all():
        raise WeightsError(f"{path}: {name} has values that are not finite. Get the file again")
    return floats


def _labels(
    given: Sequence[str], described: Description, num_classes: int, path: str | Path
) -> tuple[tuple[str, ...], str]:
    """The names of the classes, and their origin."""
    labels = tuple(given) or described.labels
    if labels and len(labels) != num_classes:
        where = "" if given else f" in {described.where}"
        raise WeightsError(
            f"{path} has {num_classes} classes, but there are {len(labels)} labels{where}. Give "
            "one label per class"
        )
    if labels:
        return labels, GIVEN if given else described.where
    if num_classes not in (_IMAGENET, _WITH_BACKGROUND):
        return (), "none are known"
    background = ("background",) if num_classes == _WITH_BACKGROUND else ()
    return background + imagenet_labels(), ASSUMED
