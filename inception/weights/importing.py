"""From a file of a known source to our network; every tensor is accounted for."""

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
    """Reads a file of weights of any source.

    Args:
      path: as `files.open_tensors` takes it.
      source: of `sources.SOURCES`; "timm" also takes the tag that the file's path or the
        config.json beside it names; "auto" finds it out.
      ema: Takes the running averages of the weights, where the file has them.
      background: keeps class 0 of 1001.
      labels: The classes' names; by default those that the file states, or ImageNet's if there
        are 1000.
      preprocessing: Fields of `Preprocessing` that are known better than the file states them.
      activation: "softmax" or "sigmoid", likewise.

    Returns:
      The network. A file without a head, as Keras's include_top=False or an Identity in its place,
      gives one of one class whose logit is 0: its features can be used, and its head replaced.

    Raises:
      WeightsError: when the file cannot be read, or holds anything but this network.
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
    after = ("softmax", "no head")
    if has_head:
        after = settle_activation(activation, described, model.num_classes)
    provenance["activation"] = after[1]
    return Pretrained(
        model=model,
        variables=unflatten_dict(arrays, sep="/"),
        preprocessing=scaling,
        labels=named,
        source=name,
        sha256=files.sha256(path),
        activation=after[0],
        provenance=chosen | provenance | left_out,
    )


def _describe(
    source: str, tensors: Tensors, path: str | Path, given: Mapping[str, Any]
) -> Description:
    """What the file, or the config.json beside it, says of itself."""
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
    """The network without a side head whose layers are for larger images, and what was done."""
    if image_size == Preprocessing().image_size:
        return model, arrays, {}
    try:
        shapes = shapes_of(model, image_size)
    except ValueError as error:
        raise WeightsError(f"image_size={image_size}: {error}") from error
    if all(array.shape == shapes[name] for name, array in arrays.items()):
        return model, arrays, {}
    kept = {name: array for name, array in arrays.items() if "/AuxLogits/" not in name}
    why = f"left out: the file's side head is too large for images of {image_size}"
    return model.clone(aux_head="none"), kept, {"model.aux_head": why}


def _source_name(source: str, tensors: Tensors, path: str | Path) -> str:
    if source == "auto":
        return recognize(tensors, path)
    if source == "timm":
        tag = timm_tag(path)
        return f"timm.{tag}" if tag else "timm"
    if source in SOURCES:
        return source
    raise WeightsError(f"source {source!r} is not known: name auto, {', '.join(SOURCES)}")


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
            raise WeightsError(f"{path}: {name} has a negative variance: get the file again")
    return model, arrays, has_head


def _model(source: Source, found: Shapes, has_head: bool, path: str | Path) -> Inception:
    """The source's network with the classes and the side head that the file has."""
    naming = source.naming
    shape = found.get(naming.heads[_LOGITS], (_IMAGENET,)) if has_head else (1,)
    if not (len(shape) == 1 and 1 <= shape[0] <= _MAX_CLASSES):
        raise WeightsError(
            f"{path}: {naming.heads[_LOGITS]} has shape {shape}, and a head has from 1 to "
            f"{_MAX_CLASSES} classes"
        )
    aux_head = any(name.startswith(naming.aux_head) for name in found) and naming.aux_head
    if source is SOURCES["fid"] and (shape[0] != FID_CLASSES or aux_head):
        raise WeightsError(
            f"{path} has {shape[0]} classes{' and a side head' if aux_head else ''}, and FID's "
            f"network has {FID_CLASSES} and none. Name another source"
        )
    return Inception(shape[0], aux_head="bn" if aux_head else "none", **source.model)


def _floats(array: np.ndarray, name: str, path: str | Path) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WeightsError(f"{path}: {name} is {array.dtype}, and weights are floats")
    floats = array.astype(np.float32)
    if not np.isfinite(floats).all():
        raise WeightsError(f"{path}: {name} has values that are not finite: get the file again")
    return floats


def _labels(
    given: Sequence[str], described: Description, num_classes: int, path: str | Path
) -> tuple[tuple[str, ...], str]:
    """The classes' names, and where they come from."""
    labels = tuple(given) or described.labels
    if labels and len(labels) != num_classes:
        where = "" if given else f" in {described.where}"
        raise WeightsError(
            f"{path} has {num_classes} classes, and there are {len(labels)} labels{where}: give as "
            "many"
        )
    if labels:
        return labels, GIVEN if given else described.where
    if num_classes not in (_IMAGENET, _WITH_BACKGROUND):
        return (), "none are known"
    background = ("background",) if num_classes == _WITH_BACKGROUND else ()
    return background + imagenet_labels(), ASSUMED
