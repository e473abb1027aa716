"""Keras's HDF5 files: which dataset is which convolution.

Keras numbers layers over a whole program, so the same network's convolutions are conv2d ...
conv2d_93 in one file and conv2d_94 ... conv2d_187 in another: only the order tells. The older
layout (.h5) has the layers' names, numbered by creation. Keras 3's (.weights.h5, .keras) has
numbers of its own, by depth in the graph, and numbers in place of the weights' names. In either,
the network may be a layer of another model. The head is the linear layer on the network's 2048
features, whatever it is called.
"""

import re
from collections import defaultdict
from typing import Any

from inception.weights.names import KERAS3_PLACES

_NAMED = re.compile(
    r"(.*)/(kernel|bias|gamma|beta|moving_mean|moving_variance|mean|variance|count)(:0)?"
)
_NUMBERED = re.compile(r"(.*)/vars/(\d+)")
_VARIABLES = {  # in Keras 3's order; a normalization with a scale has it first
    ("conv2d", 1): ["kernel"],
    ("batch_normalization", 3): ["beta", "moving_mean", "moving_variance"],
    ("batch_normalization", 4): ["gamma", "beta", "moving_mean", "moving_variance"],
    ("dense", 1): ["kernel"],
    ("normalization", 2): ["mean", "variance"],
    ("normalization", 3): ["mean", "variance", "count"],
}
# What belongs to training: optimizers, metrics (of whole models, at the top of a file or of a model
# within) and the generators of random numbers of layers such as Dropout.
_TRAINING = re.compile(
    r"(^|/)(optimizer|optimizer_weights|\w*metrics|loss_tracker|seed_generator(_\d+)?)(/|$)"
)
_FEATURES = 2048


def places(file: Any) -> dict[str, str]:
    """Where the arrays of an h5py.File are, by the names that `names.KERAS` gives them.

    A Normalization layer's are "normalization/mean", "/variance" and "/count". Whatever is none of
    the network's layers keeps its place for a name; what belongs to training is left out. Datasets
    that lie outside the file are not followed.
    """
    named: dict[str, str] = {}
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for place in _datasets(file):
        match = _NAMED.fullmatch(place) or _NUMBERED.fullmatch(place)
        if match:
            layers[match[1]][match[2]] = place
        else:
            named[place] = place

    by_kind = defaultdict(list)
    for layer in sorted(layers, key=_number):
        by_kind[_kind(layer)].append(_with_weights_named(_kind(layer), layers[layer]))
    for kind in ("conv2d", "batch_normalization"):
        for number, weights in enumerate(_by_creation(by_kind.pop(kind, []))):
            named |= {f"{kind}_{number}/{weight}": place for weight, place in weights.items()}
    others = [weights for same_kind in by_kind.values() for weights in same_kind]
    roles = [_role(file, weights) for weights in others]
    for role, weights in zip(roles, others, strict=True):
        if role and roles.count(role) == 1:
            named |= {f"{role}/{weight}": place for weight, place in weights.items()}
        else:
            named |= {place: place for place in weights.values()}
    return named


def _role(file: Any, weights: dict[str, str]) -> str:
    """What a layer beside the network is for: its head, the scaling of its input, or ""."""
    if "kernel" in weights and file[weights["kernel"]].shape[:1] == (_FEATURES,):
        return "predictions"
    return "normalization" if "variance" in weights else ""


def _datasets(file: Any) -> list[str]:
    import h5py

    found: list[str] = []

    def visit(place: str, item: Any) -> None:
        inside = isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual
        if inside and not _TRAINING.search(place):
            found.append(place)

    file.visititems(visit)
    return found


def _kind(layer: str) -> str:
    """Of the path of a layer's group: "conv2d" of ".../conv2d_3"."""
    return re.sub(r"_\d+$", "", layer.rpartition("/")[2])


def _number(layer: str) -> int:
    number = re.search(r"_(\d+)$", layer)
    return int(number[1]) if number else 0


def _with_weights_named(kind: str, weights: dict[str, str]) -> dict[str, str]:
    """Keras 3's weights 0, 1, ... by their names; of two, a linear layer's."""
    usual = ["kernel", "bias"] if len(weights) == 2 else []
    names = _VARIABLES.get((kind, len(weights)), usual)
    return {
        names[int(weight)] if weight.isdigit() and int(weight) < len(names) else weight: place
        for weight, place in weights.items()
    }


def _by_creation(layers: list[dict[str, str]]) -> list[dict[str, str]]:
    """Layers in the order of their numbers -> in the order of their creation."""
    by_depth = any("/vars/" in place for weights in layers for place in weights.values())
    if not by_depth or len(layers) != len(KERAS3_PLACES):  # another network: names will be missing
        return layers
    return [layers[place] for place in KERAS3_PLACES]
