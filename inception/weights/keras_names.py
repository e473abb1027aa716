"""Keras's HDF5 files: which dataset is which convolution.

Keras numbers layers over a whole program, so the same network's convolutions are conv2d ...
conv2d_93 in one file and conv2d_94 ... conv2d_187 in another: only the order tells. The older
layout (.h5) has the layers' names, numbered by creation. Keras 3's (.weights.h5, .keras) has
numbers of its own, by depth in the graph, and numbers in place of the weights' names. In either,
the network may be a layer of another model.
"""

import re
from collections import defaultdict
from typing import Any

from inception.weights.names import KERAS3_PLACES

_NAMED = re.compile(r"(.*)/(kernel|bias|gamma|beta|moving_mean|moving_variance)(:0)?")
_NUMBERED = re.compile(r"(.*)/vars/(\d+)")
_VARIABLES = {  # in Keras 3's order; a normalization with a scale has it first
    ("conv2d", 1): ["kernel"],
    ("batch_normalization", 3): ["beta", "moving_mean", "moving_variance"],
    ("batch_normalization", 4): ["gamma", "beta", "moving_mean", "moving_variance"],
    ("dense", 2): ["kernel", "bias"],
}


def places(file: Any) -> dict[str, str]:
    """Where the arrays of an h5py.File are, by the names that `names.KERAS` gives them.

    Whatever is not a convolution, a batch normalization or the only other layer keeps its place
    for a name. Datasets that lie outside the file are not followed.
    """
    named: dict[str, str] = {}
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for place in _datasets(file):
        match = _NAMED.fullmatch(place) or _NUMBERED.fullmatch(place)
        if match and not place.startswith("optimizer"):
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
    for weights in others:
        head = len(others) == 1
        named |= {
            f"predictions/{weight}" if head else place: place for weight, place in weights.items()
        }
    return named


def _datasets(file: Any) -> list[str]:
    import h5py

    found: list[str] = []

    def visit(place: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
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
    """Keras 3's weights 0, 1, ... by their names."""
    names = _VARIABLES.get((kind, len(weights)), [])
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
