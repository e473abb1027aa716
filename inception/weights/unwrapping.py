"""Finds the one network in a checkpoint, whatever a training program has wrapped around it.

TensorFlow checkpoints store the running averages of parameters under names of their own. PyTorch
programs save more than a state dict: dictionaries around it ("state_dict/fc.bias"), a module around
the network ("module.fc.bias", "_orig_mod.", "encoder_"), running averages of the parameters
("state_dict_ema/..."), the state of an optimizer, another head ("fc.1.bias"), losses and metrics.
The network is found by the names of its convolutions, whatever precedes them.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from inception.weights import names
from inception.weights.files import Shapes, Tensors, WeightsError

_AVERAGE = {"ema", "swa", "avg", "average", "averages", "averaged", "emamodel", "modelema"}
# Of an optimizer's state: Adam's "exp_avg" is an average of gradients, not of parameters.
_MOMENTS = re.compile(
    r"(?<![a-z])(optim|optimizers?|opt_state|exp_avg|exp_inf|square_avg|grad_avg|momentum_buffer)"
    r"(?![a-z])"
)
_LOSS = {"criterion", "criterions", "loss", "losses", "metric", "metrics"}
_SCALING = {"mean", "std"}
_HEAD, _AUX_HEAD = "fc.", f"{names.TORCH.aux_head}fc."
_FEATURES = 2048

Places = dict[str, str]  # torchvision's name of a tensor -> its name in the file


def _body(naming: names.Naming, root: str = "", leaves: Sequence[str] = ()) -> frozenset[str]:
    """The source's names of the network's convolutions, without both heads, after `root`."""
    rows = names.CONVOLUTIONS[: -len(names.AUX_HEAD)]
    ours = (leaf.format(row) for row in rows for leaf in leaves or naming.leaves)
    return frozenset(name.removeprefix(root) for name in names.table(naming, ours).values())


_BODY = _body(names.TORCH)
_MODULES = {name.partition(".")[0] for name in (*_BODY, *names.TORCH.heads.values())}
_KERNELS = ["params/{}/conv/kernel"]
_TENSORFLOW = [  # root of the names, and the names of the kernels after it
    (root, _body(naming, root, _KERNELS))
    for naming, root in ((names.SLIM, "InceptionV3/"), (names.RESEARCH, ""))
]


def unwrap(tensors: Tensors, path: str | Path, ema: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Selects the network's tensors.

    Args:
      tensors: Tensors of a file of any source.
      path: The file, for messages.
      ema: Whether to use the running averages of the parameters, if the file has them.

    Returns:
      The network's tensors, PyTorch's by torchvision's names; and notes on what was chosen or left
      out, by subject ("parameters", "model.aux_head", "tensors").

    Raises:
      WeightsError: If there are several networks or heads, or layers outside the network.
    """
    weights = {name: s for name, s in tensors.shapes.items() if not _MOMENTS.search(name.lower())}
    if found := _prefixes(weights, _BODY):
        places, notes = _unwrap_torch(weights, found, path, ema)
    else:
        places, notes = _unwrap_tensorflow(tensors.shapes, path, ema)
    shapes = {name: tensors.shapes[place] for name, place in places.items()}
    return replace(tensors, shapes=shapes, read=lambda name: tensors.read(places[name])), notes


def _prefixes(shapes: Shapes, body: frozenset[str]) -> dict[str, set[str]]:
    """What precedes names of `body` in a file, each with the names that it precedes."""
    found: dict[str, set[str]] = defaultdict(set)
    lengths = {len(name) for name in body}
    for name in shapes:
        for length in lengths:
            if name[-length:] in body:
                found[name[:-length]].add(name[-length:])
    return found


def _unwrap_torch(
    shapes: Shapes, found: dict[str, set[str]], path: str | Path, ema: bool
) -> tuple[Places, dict[str, str]]:
    """The places of the network of one of the prefixes `found`, and notes."""
    candidates = [prefix for prefix in found if not _LOSS & _words(prefix)] or [*found]
    averages = [prefix for prefix in candidates if _is_average(prefix, shapes)]
    raw = [prefix for prefix in candidates if prefix not in averages]
    # Gradients have the names of parameters alone.
    raw = [prefix for prefix in raw if any(".running_" in name for name in found[prefix])] or raw
    chosen = _only((averages or raw) if ema else (raw or averages), path)
    (places, left_out), notes = _network(shapes, chosen, found, path), {}
    if chosen in averages:
        notes["parameters"] = f"running averages, {chosen}"
        if len(raw) == 1:  # some programs do not average everything
            not_averaged, _ = _network(shapes, raw[0], found, path)
            notes["parameters"] += _completed(places, not_averaged, raw[0])
            places = not_averaged | places
    elif averages:
        notes["parameters"] = f"{chosen or 'the parameters'}, not the running averages"
    elif nameless := [name for name, shape in shapes.items() if shape and _AVERAGE & _words(name)]:
        notes["parameters"] = f"not the averages {nameless[0]}, ..., which are not named by layer"
    others = [prefix for prefix in found if prefix not in (*averages, *raw)]
    left_out += sorted(prefix + name for prefix in others for name in found[prefix])
    if left_out := [name for name in left_out if name not in places.values()]:
        listed = ", ".join(f"{name} {shapes[name]}" for name in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        notes["tensors"] = f"left out, as they are not the network's: {listed}{more}"
    return places, notes | _drop_other_aux_head(places, shapes)


def _unwrap_tensorflow(
    shapes: Shapes, path: str | Path, ema: bool
) -> tuple[Places, dict[str, str]]:
    """TensorFlow's variables without a prefix or an optimizer's, and notes.

    Each is replaced by its running average if there is one and `ema`.
    """
    places = {name: name for name in shapes}
    for root, kernels in _TENSORFLOW:
        found = _prefixes(shapes, kernels)
        if whole := [prefix for prefix, body in found.items() if body == kernels]:
            prefix = _only(whole, path)
            inside = {name for name in shapes if name.startswith(prefix)}
            places = {name: name for name in shapes if name not in inside}
            places |= {root + name.removeprefix(prefix): name for name in inside}
            break
    averaged = {n.removesuffix(names.EMA): p for n, p in places.items() if n.endswith(names.EMA)}
    # An optimizer's variables are below the one that they belong to, "weights/Adam_1".
    parameters = {n: p for n, p in places.items() if n.rpartition("/")[0] not in places}
    parameters = {n: p for n, p in parameters.items() if not n.endswith(names.EMA)}
    if not averaged:
        return parameters, {}
    note = "running averages" if ema else "not the running averages"
    return parameters | averaged if ema else parameters, {"parameters": note}


def _only(prefixes: Sequence[str], path: str | Path) -> str:
    if len(prefixes) > 1:
        listed = " and ".join(repr(prefix) for prefix in sorted(prefixes))
        raise WeightsError(
            f"{path} has {len(prefixes)} networks, under the prefixes {listed}. Save the weights "
            "of one of them"
        )
    return prefixes[0]


def _is_average(prefix: str, shapes: Shapes) -> bool:
    """Whether tensors with this prefix are running averages.

    timm, lucidrains' ema-pytorch and most training programs name them so. AveragedModel of
    torch.optim.swa_utils stores the count "n_averaged"; Lightning's WeightAveraging stores the
    averages as "state_dict" and the parameters as "current_model_state".
    """
    if _AVERAGE & _words(prefix):
        return True
    if prefix.endswith("module.") and f"{prefix.removesuffix('module.')}n_averaged" in shapes:
        return True
    lightning = any(name.startswith("current_model_state/") for name in shapes)
    return lightning and prefix.startswith("state_dict/")


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _network(
    shapes: Shapes, prefix: str, prefixes: Iterable[str], path: str | Path
) -> tuple[Places, list[str]]:
    """The tensors under a prefix, with the head under torchvision's name, and others left out.

    The head is the only linear layer apart from the auxiliary head's: `fc`, a layer of a Sequential
    in its place, or a layer outside a network whose own was removed.

    Raises:
      WeightsError: If there are several linear layers, or other layers outside the network.
    """
    dictionary = prefix[: prefix.rfind("/") + 1]
    places, outside, elsewhere = {}, [], []
    for name in shapes:
        owner = max((other for other in prefixes if name.startswith(other)), key=len, default=None)
        inside = owner == prefix and name.removeprefix(prefix).partition(".")[0] in _MODULES
        if inside and "/" not in name[len(dictionary) :]:
            places[name.removeprefix(prefix)] = name
        elif not shapes[name] or owner not in (prefix, None):
            continue  # a counter or a factor; another network's
        elif name.startswith(dictionary) and "/" not in name[len(dictionary) :]:
            outside.append(name)
        elif not _AVERAGE & _words(name):
            elsewhere.append(name)
    linear = [name for name in (*places.values(), *outside) if _is_linear(name, shapes)]
    aux_heads = [name for name in linear if name.startswith(prefix + _AUX_HEAD)]
    heads = [name for name in linear if name not in aux_heads]
    if len(heads) > 1:
        listed = ", ".join(f"{name} {shapes[name]}" for name in heads)
        raise WeightsError(
            f"{path} has {len(heads)} linear layers, {listed}, but a head here is a single one. "
            "Replace them by one, or remove them and use the network's features"
        )
    if not heads:  # {"backbone": {...}, "classifier": {"weight": ...}}
        heads = [name for name in elsewhere if _is_linear(name, shapes, _FEATURES)]
    if len(heads) == 1:
        _rename(places, shapes, heads[0], _HEAD)
    if len(aux_heads) == 1:
        _rename(places, shapes, aux_heads[0], _AUX_HEAD)
    several = heads if len(heads) > 1 else []  # elsewhere, so perhaps none is the head
    left_out = sorted({*outside, *several}.difference(places.values()))
    if layers := [name for name in left_out if name in outside and _computes(name, shapes)]:
        raise WeightsError(
            f"{path} has tensors outside the network under {prefix!r}: {', '.join(layers[:5])}, "
            "which may change what it computes. Save the state dict of the network alone"
        )
    return places, left_out


def _is_linear(name: str, shapes: Shapes, inputs: int = 0) -> bool:
    """Whether a tensor is the weight of a linear layer, with `inputs` inputs, if given."""
    shape = shapes[name]
    named = re.search(r"(^|[./])weight$", name) and not _LOSS & _words(name)
    return bool(named) and len(shape) == 2 and inputs in (0, shape[1])


def _computes(name: str, shapes: Shapes) -> bool:
    """Whether a tensor is a layer's or scales the input, rather than a loss's or a metric's."""
    layer, shape, words = name[: name.rfind(".") + 1], shapes[name], _words(name)
    if _LOSS & words:
        return False
    pair = {f"{layer}weight", f"{layer}bias"} <= shapes.keys()
    kernel = name.endswith("weight") and len(shape) > 1
    scaling = bool(_SCALING & words) and math.prod(shape) == 3
    return kernel or pair or scaling or f"{layer}running_mean" in shapes


def _rename(places: Places, shapes: Shapes, weight: str, layer: str) -> None:
    """Renames the linear layer that has this weight to `layer`."""
    for leaf in ("weight", "bias"):
        place = weight.removesuffix("weight") + leaf
        if place in shapes:
            for name in [name for name in places if places[name] == place]:
                del places[name]
            places[layer + leaf] = place


def _completed(averages: Places, parameters: Places, prefix: str) -> str:
    """A note on tensors without an average."""
    extras = names.TORCH.extras
    missing = [name for name in parameters.keys() - averages.keys() if not re.search(extras, name)]
    return f"; {len(missing)} tensors that are not averaged, {prefix}" if missing else ""


def _drop_other_aux_head(places: Places, shapes: Shapes) -> dict[str, str]:
    """Removes an auxiliary head of other classes than the head's; returns a note on it."""
    head, aux_head = (places.get(f"{layer}bias") for layer in (_HEAD, _AUX_HEAD))
    if aux_head is None or (head and shapes[head] == shapes[aux_head]):
        return {}
    for name in [name for name in places if name.startswith(names.TORCH.aux_head)]:
        del places[name]
    classes = f"the head's {shapes[head]}" if head else "there is no head"
    return {"model.aux_head": f"left out: its bias is {shapes[aux_head]}, {classes}"}
