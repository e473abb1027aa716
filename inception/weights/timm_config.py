"""timm's config.json, which `push_to_hf_hub` writes next to the weights.

The current form has the preprocessing in "pretrained_cfg"; the older form has it at the top level,
often incomplete. Taken from timm/models/_hub.py, timm/data/config.py and transforms_factory.py.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inception.data.preprocessing import INTERPOLATIONS
from inception.weights.description import Description, square
from inception.weights.files import Shapes, WeightsError

_AVERAGE = ("avg", "", None)
_ARGUMENTS = {"global_pool", "num_classes", "aux_logits", "drop_rate"}  # change no output


def read(path: str | Path) -> dict[str, Any]:
    """The config.json next to a weights file, or in a folder, in the current form.

    Returns:
      Its content; {} if there is none or another program wrote it.

    Raises:
      WeightsError: If it is not valid JSON.
    """
    file = _config_file(path)
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{file}, next to {path}, cannot be read ({error}). Get it again, or move it away"
        ) from error
    if not isinstance(content, dict):
        return {}
    if isinstance(content.get("pretrained_cfg"), dict):
        return content
    if isinstance(content.get("architecture"), str):
        return {**content, "pretrained_cfg": content}
    return {}


def _config_file(path: str | Path) -> Path:
    path = Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib fails if ~NAME is nobody)
    return (path if path.is_dir() else path.parent) / "config.json"


def tag(path: str | Path) -> str:
    """The tag in the config.json, such as "tf_in1k" or a custom one, or ""."""
    config = read(path)
    named = config.get("pretrained_cfg", {}).get("tag")
    return str(named or str(config.get("architecture", "")).partition(".")[2])


def describe(path: str | Path, shapes: Shapes, given: Mapping[str, Any]) -> Description:
    """What the config.json states.

    Args:
      path: The weights file.
      shapes: Shapes of its tensors.
      given: Fields of `Preprocessing` from the caller; the file's statements on them are not read.

    Raises:
      WeightsError: If it states something that has no equivalent here.
    """
    config = read(path)
    if not config:
        return Description()
    where, stated = str(_config_file(path)), config["pretrained_cfg"]
    _check_network(path, config, shapes)
    readers = {
        "image_size": ("input_size", lambda size: square(path, where, size[1:])),
        "mean": ("mean", lambda mean: tuple(map(float, mean))),
        "std": ("std", lambda std: tuple(map(float, std))),
        "interpolation": ("interpolation", lambda name: _interpolation(path, name)),
    }
    fields: dict[str, Any] = {}
    try:
        for field, (theirs, convert) in readers.items():
            if stated.get(theirs) is not None and field not in given:
                fields[field] = convert(stated[theirs])
        if stated.get("crop_pct") is not None and "crop_fraction" not in given:
            size = given.get("image_size", fields.get("image_size", 299))
            # timm rounds down the side that it resizes to.
            fields["crop_fraction"] = size / int(size / float(stated["crop_pct"]))
        if stated.get("crop_mode") is not None and "method" not in given:
            fraction = {**fields, **given}.get("crop_fraction", 0.0)
            fields["method"] = _method(path, stated["crop_mode"], fraction)
    except (TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{where} is damaged ({error}). Get it again") from error
    return Description(
        where=Path(where).name, preprocessing=fields, labels=_labels(where, config, shapes)
    )


def _check_network(path: str | Path, config: dict[str, Any], shapes: Shapes) -> None:
    classes = config.get("num_classes", config["pretrained_cfg"].get("num_classes"))
    found = shapes.get("fc.bias", (classes,))[0]
    if classes and classes != found:
        raise WeightsError(
            f"{path} has {found} classes, but the config.json next to it states {classes}. Move "
            "the config.json away if it belongs to another model"
        )
    arguments = config.get("model_args")
    arguments = arguments if isinstance(arguments, dict) else {}
    if unknown := {name for name in arguments.keys() - _ARGUMENTS if arguments[name] is not None}:
        name = min(unknown)
        raise WeightsError(
            f"{path}: config.json states model_args {name}={arguments[name]!r}, which this network "
            "cannot express. Import weights of timm's unchanged inception_v3"
        )
    pools = [config.get("global_pool"), arguments.get("global_pool")]
    if other := [pool for pool in pools if pool not in _AVERAGE]:
        raise WeightsError(
            f"{path}: config.json states global_pool={other[0]!r}, but this network averages its "
            "last features. Train the head again with 'avg'"
        )


def _interpolation(path: str | Path, name: Any) -> str:
    if name not in INTERPOLATIONS:
        raise WeightsError(
            f"{path}: config.json states interpolation={name!r}, which does not exist here. Pass "
            f"--interpolation, one of {INTERPOLATIONS}"
        )
    return name


def _method(path: str | Path, mode: Any, crop_fraction: float) -> str:
    """Our name of a crop mode; timm_folder.py is the inverse.

    "squash" resizes both sides to a square and crops its center, which is what "inception" does in
    the other order, and "resize" if nothing is cropped.
    """
    if mode == "squash":
        return "inception" if crop_fraction < 1 else "resize"
    if mode != "center":
        raise WeightsError(
            f"{path}: config.json states crop_mode={mode!r}, and only 'center' and 'squash' exist "
            "here. Pass --method=resize_crop or another"
        )
    return "resize_crop"


def _labels(where: str, config: dict[str, Any], shapes: Shapes) -> tuple[str, ...]:
    """The names of the classes, "labels" in older files."""
    places = (config, config["pretrained_cfg"])
    found = (place.get(name) for place in places for name in ("label_names", "labels"))
    names: Any = next(filter(None, found), [])
    if isinstance(names, dict):  # by number
        names = [names.get(str(number)) for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WeightsError(f"{where}: label_names is not a list of names. Pass --labels")
    return tuple(names)
