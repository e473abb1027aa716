"""The one network in a file, without what a training program wrapped around it.

TensorFlow's checkpoints have the running averages of weights under names of their own. PyTorch's
programs save more than a state dict: dictionaries around it ("state_dict/fc.bias"), a module around
the network ("module.fc.bias", "_orig_mod.", "backbone."), running averages beside the weights
("state_dict_ema/..."), a head of their own ("fc.1.bias"). The network is found by its own names,
whatever the wrappings are called.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inception.weights import names
from inception.weights.files import Shapes, Tensors, WeightsError

(_SAMPLE,) = names.table(names.TORCH, ["params/Mixed_5b/branch1x1/conv/kernel"]).values()
_AVERAGE = {"ema", "swa", "avg", "average", "averages", "averaged", "emamodel", "modelema"}
_HEAD, _SIDE_HEAD = "fc.", f"{names.TORCH.aux_head}fc."

Places = dict[str, str]  # torchvision's name of a tensor -> its name in the file


def unwrap(tensors: Tensors, path: str | Path, ema: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Takes everything off that is wrapped around a network.

    Args:
      tensors: Those of a file, of any source.
      path: The file, for messages.
      ema: Takes the running averages of the weights, where the file has them.

    Returns:
      The network's tensors, PyTorch's by torchvision's names; and what was chosen or left out, by
      what it is about ("parameters", "model.aux_head").

    Raises:
      WeightsError: When there are several networks or heads, or parts that are not understood.
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
        if len(raw) == 1:  # some programs average the parameters alone
            weights = _network(tensors.shapes, raw[0], prefixes, path)
            notes["parameters"] += _completed(places, weights, raw[0])
            places = weights | places
    elif averages:
        notes["parameters"] = f"{chosen or 'the weights'}, not the running averages"
    elif nameless := [n for n, shape in tensors.shapes.items() if shape and _AVERAGE & _words(n)]:
        notes["parameters"] = f"not the averages {nameless[0]}, ..., which have no names of layers"
    notes |= _leave_out_side_head(places, tensors.shapes)
    shapes = {name: tensors.shapes[place] for name, place in places.items()}
    return replace(tensors, shapes=shapes, read=lambda name: tensors.read(places[name])), notes


def _unwrap_averages(tensors: Tensors, ema: bool) -> tuple[Tensors, dict[str, str]]:
    """TensorFlow's: each tensor replaced by its running average where there is one, if `ema`."""
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
            f"{path} holds {len(prefixes)} networks, whose names begin with {listed}: save the "
            "state dict of the one that is meant"
        )
    return prefixes[0]


def _is_average(prefix: str, shapes: Shapes) -> bool:
    """Whether names that begin so are of running averages.

    Those of timm, of lucidrains' and of most training programs say so. AveragedModel of
    torch.optim.swa_utils counts what it averaged; Lightning's WeightAveraging keeps the averages
    as the "state_dict" and a state of its own beside it.
    """
    if _AVERAGE & _words(prefix):
        return True
    if prefix.endswith("module.") and f"{prefix.removesuffix('module.')}n_averaged" in shapes:
        return True
    beside = any(name.startswith("current_model_state/") for name in shapes)
    return beside and prefix.startswith("state_dict/")


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _network(shapes: Shapes, prefix: str, prefixes: Sequence[str], path: str | Path) -> Places:
    """The tensors under a prefix, the head under torchvision's name for it.

    The head is the only linear layer but the side head's: `fc`, a layer of a Sequential in its
    place, or one beside a network whose own was taken off.

    Raises:
      WeightsError: When there are several, or other tensors beside the network.
    """
    dictionary = prefix[: prefix.rfind("/") + 1]
    places, beside = {}, []
    for name in shapes:
        owner = max((other for other in prefixes if name.startswith(other)), key=len, default=None)
        if not name.startswith(dictionary) or "/" in name[len(dictionary) :]:
            continue
        if owner == prefix:
            places[name.removeprefix(prefix)] = name
        elif owner is None and shapes[name]:  # a scalar counts or weighs something
            beside.append(name)
    linear = [
        name
        for name in (*places.values(), *beside)
        if name.endswith(".weight") and len(shapes[name]) == 2
    ]
    side_heads = [name for name in linear if name.startswith(prefix + _SIDE_HEAD)]
    heads = [name for name in linear if name not in side_heads]
    if len(heads) > 1:
        listed = ", ".join(f"{name} {shapes[name]}" for name in heads)
        raise WeightsError(
            f"{path} has {len(heads)} linear layers, {listed}, and a head here is one. Put one in "
            "their place, or take them off and use the network's features"
        )
    if heads:
        _rename(places, shapes, heads[0], _HEAD)
    if len(side_heads) == 1:
        _rename(places, shapes, side_heads[0], _SIDE_HEAD)
    if unknown := sorted(set(beside) - set(places.values())):
        raise WeightsError(
            f"{path} holds more than the network under {prefix!r}: {', '.join(unknown[:5])}. Save "
            "the state dict of the network alone"
        )
    return places


def _rename(places: Places, shapes: Shapes, weight: str, layer: str) -> None:
    """Gives the linear layer with this weight the names of `layer`."""
    for leaf in ("weight", "bias"):
        place = weight.removesuffix("weight") + leaf
        if place in shapes:
            for name in [name for name in places if places[name] == place]:
                del places[name]
            places[layer + leaf] = place


def _completed(averages: Places, weights: Places, prefix: str) -> str:
    """What to say of tensors that are not averaged."""
    extras = names.TORCH.extras
    lacking = [name for name in weights.keys() - averages.keys() if not re.search(extras, name)]
    return f"; {len(lacking)} tensors that are not averaged, {prefix}" if lacking else ""


def _leave_out_side_head(places: Places, shapes: Shapes) -> dict[str, str]:
    """Takes off a side head of other classes than the head's, and says so."""
    head, aux_head = (places.get(f"{layer}bias") for layer in (_HEAD, _SIDE_HEAD))
    if aux_head is None or (head and shapes[head] == shapes[aux_head]):
        return {}
    for name in [name for name in places if name.startswith(names.TORCH.aux_head)]:
        del places[name]
    classes = f"the head's {shapes[head]}" if head else "there is no head"
    return {"model.aux_head": f"left out: its bias is {shapes[aux_head]}, {classes}"}
