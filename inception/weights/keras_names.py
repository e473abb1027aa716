"""Which dataset of a Keras HDF5 file holds which variable of the network.

Keras numbers layers across a whole program, so the convolutions are conv2d ... conv2d_93 in one
file and conv2d_94 ... conv2d_187 in another: only their order is reliable. The older layout (.h5)
has the layers' names, numbered by creation. Keras 3's (.weights.h5, .keras) numbers layers by depth
in the graph, and variables instead of naming them. In both, the network may be nested in another
model. The head is the linear layer on the network's 2048 features, whatever its name.
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
# What belongs to training: optimizers, metrics (at the top of a file or of a nested model), and the
# random number generators of layers such as Dropout.
_TRAINING = re.compile(
    r"(^|/)(optimizer|optimizer_weights|\w*metrics|loss_tracker|seed_generator(_\d+)?)(/|$)"
)
_FEATURES = 2048


def places(file: Any) -> dict[str, str]:
    """The paths of an h5py.File's arrays, by their names in `names.KERAS`.

    A Normalization layer's are "normalization/mean", "/variance" and "/count". Arrays of other
    layers are named by their own path; those that belong to training are left out. External and
    virtual datasets are not followed.
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
        by_kind[_kind(layer)].append(_with_variables_named(_kind(layer), layers[layer]))
    for kind in ("conv2d", "batch_normalization"):
        for number, variables in enumerate(_by_creation(by_kind.pop(kind, []))):
            named |= {f"{kind}_{number}/{name}": place for name, place in variables.items()}
    others = [variables for same_kind in by_kind.values() for variables in same_kind]
    roles = [_role(file, variables) for variables in others]
    for role, variables in zip(roles, others, strict=True):
        if role and roles.count(role) == 1:
            named |= {f"{role}/{name}": place for name, place in variables.items()}
        else:
            named |= {place: place for place in variables.values()}
    return named


def _role(file: Any, variables: dict[str, str]) -> str:
    """The role of a layer outside the network: "predictions", "normalization" or ""."""
    if "kernel" in variables and file[variables["kernel"]].shape[:1] == (_FEATURES,):
        return "predictions"
    return "normalization" if "variance" in variables else ""


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
    """The kind of a layer from the path of its group: "conv2d" from ".../conv2d_3"."""
    return re.sub(r"_\d+$", "", layer.rpartition("/")[2])


def _number(layer: str) -> int:
    number = re.search(r"_(\d+)$", layer)
    return int(number[1]) if number else 0


def _with_variables_named(kind: str, variables: dict[str, str]) -> dict[str, str]:
    """Names Keras 3's variables 0, 1, ...; two of an unknown kind are a linear layer's."""
    usual = ["kernel", "bias"] if len(variables) == 2 else []
    names = _VARIABLES.get((kind, len(variables)), usual)
    return {
        names[int(name)] if name.isdigit() and int(name) < len(names) else name: place
        for name, place in variables.items()
    }


def _by_creation(layers: list[dict[str, str]]) -> list[dict[str, str]]:
    """Sorts layers from the order of their numbers into the order of their creation."""
    by_depth = any("/vars/" in place for variables in layers for place in variables.values())
    if not by_depth or len(layers) != len(KERAS3_PLACES):  # another network: names will be missing
        return layers
    return [layers[place] for place in KERAS3_PLACES]
