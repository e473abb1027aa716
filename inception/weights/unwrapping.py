"""Finds the one network in a checkpoint, whatever a training program has wrapped around it.

TensorFlow checkpoints store the running averages of parameters under names of their own. PyTorch
programs save more than a state dict: dictionaries around it ("state_dict/fc.bias"), a module around
the network ("module.fc.bias", "_orig_mod.", "backbone."), running averages of the parameters
("state_dict_ema/..."), another head ("fc.1.bias"). The network is found by the names of its
tensors, whatever their prefix.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inception.weights import names
from inception.weights.files import Shapes, Tensors, WeightsError

(_SAMPLE,) = names.table(names.TORCH, ["params/Mixed_5b/branch1x1/conv/kernel"]).values()
_AVERAGE = {"ema", "swa", "avg", "average", "averages", "averaged", "emamodel", "modelema"}
_HEAD, _AUX_HEAD = "fc.", f"{names.TORCH.aux_head}fc."

Places = dict[str, str]  # torchvision's name of a tensor -> its name in the file


def unwrap(tensors: Tensors, path: str | Path, ema: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Selects the network's tensors.

    Args:
      tensors: Tensors of a file of any source.
      path: The file, for messages.
      ema: Whether to use the running averages of the parameters, if the file has them.

    Returns:
      The network's tensors, PyTorch's by torchvision's names; and notes on what was chosen or left
      out, by subject ("parameters", "model.aux_head").

    Raises:
      WeightsError: If there are several networks or heads, or unknown parts.
    """
    found = (name.removesuffix(_SAMPLE) for name in tensors.shapes if name.endswith(_SAMPLE))
    prefixes = [prefix for prefix in found if prefix == "" or prefix[-1] in "./"]
    if not prefixes:
        return _unwrap_averages(tensors, ema)
    averages = [prefix for prefix in prefixes if _is_average(prefix, tensors.shapes)]
    raw = [prefix for prefix in prefixes if prefix not in averages]
    chosen = _only((averages or raw) if ema else (raw or averages), path)
    places, notes = _network(tensors.shapes, chosen, prefixes, path), {}
    if chosen in averages:
        notes["parameters"] = f"running averages, {chosen}"
        if len(raw) == 1:  # some programs do not average everything
            not_averaged = _network(tensors.shapes, raw[0], prefixes, path)
            notes["parameters"] += _completed(places, not_averaged, raw[0])
            places = not_averaged | places
    elif averages:
        notes["parameters"] = f"{chosen or 'the parameters'}, not the running averages"
    elif nameless := [n for n, shape in tensors.shapes.items() if shape and _AVERAGE & _words(n)]:
        notes["parameters"] = f"not the averages {nameless[0]}, ..., which are not named by layer"
    notes |= _drop_other_aux_head(places, tensors.shapes)
    shapes = {name: tensors.shapes[place] for name, place in places.items()}
    return replace(tensors, shapes=shapes, read=lambda name: tensors.read(places[name])), notes


def _unwrap_averages(tensors: Tensors, ema: bool) -> tuple[Tensors, dict[str, str]]:
    """TensorFlow's tensors, each replaced by its running average if there is one and `ema`."""
    stored = {name: name for name in tensors.shapes if not name.endswith(names.EMA)}
    averaged = {n.removesuffix(names.EMA): n for n in tensors.shapes if n.endswith(names.EMA)}
    if not averaged:
        return tensors, {}
    if ema:
        stored |= averaged
    shapes = {name: tensors.shapes[place] for name, place in stored.items()}
    found = replace(tensors, shapes=shapes, read=lambda name: tensors.read(stored[name]))
    return found, {"parameters": "running averages" if ema else "not the running averages"}


def _only(prefixes: Sequence[str], path: str | Path) -> str:
    if len(prefixes) > 1:
        listed = " and ".join(repr(prefix) for prefix in sorted(prefixes))
        raise WeightsError(
            f"{path} has {len(prefixes)} networks, under the prefixes {listed}. Save the state "
            "dict of one of them"
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


def _network(shapes: Shapes, prefix: str, prefixes: Sequence[str], path: str | Path) -> Places:
    """The tensors under a prefix, with the head under torchvision's name for it.

    The head is the only linear layer apart from the auxiliary head's: `fc`, a layer of a Sequential
    in its place, or a layer outside a network whose own was removed.

    Raises:
      WeightsError: If there are several linear layers, or other tensors outside the network.
    """
    dictionary = prefix[: prefix.rfind("/") + 1]
    places, outside = {}, []
    for name in shapes:
        owner = max((other for other in prefixes if name.startswith(other)), key=len, default=None)
        if not name.startswith(dictionary) or "/" in name[len(dictionary) :]:
            continue
        if owner == prefix:
            places[name.removeprefix(prefix)] = name
        elif owner is None and shapes[name]:  # a scalar is a counter or a factor
            outside.append(name)
    linear = [
        name
        for name in (*places.values(), *outside)
        if name.endswith(".weight") and len(shapes[name]) == 2
    ]
    aux_heads = [name for name in linear if name.startswith(prefix + _AUX_HEAD)]
    heads = [name for name in linear if name not in aux_heads]
    if len(heads) > 1:
        listed = ", ".join(f"{name} {shapes[name]}" for name in heads)
        raise WeightsError(
            f"{path} has {len(heads)} linear layers, {listed}, but a head here is a single one. "
            "Replace them by one, or remove them and use the network's features"
        )
    if heads:
        _rename(places, shapes, heads[0], _HEAD)
    if len(aux_heads) == 1:
        _rename(places, shapes, aux_heads[0], _AUX_HEAD)
    if unknown := sorted(set(outside) - set(places.values())):
        raise WeightsError(
            f"{path} has tensors outside the network under {prefix!r}: {', '.join(unknown[:5])}. "
            "Save the state dict of the network alone"
        )
    return places


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
