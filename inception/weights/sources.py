"""The sources of weights, and how the network of each differs.

Taken from the sources' own code: torchvision.models.inception and its Inception_V3_Weights,
timm.models.inception_v3, pytorch_fid.inception, keras.applications.inception_v3 and its
imagenet_utils, slim/nets/inception_v3.py and inception_utils.py, and research/inception.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inception.data.preprocessing import Preprocessing
from inception.weights import names, timm_config
from inception.weights.files import Tensors, WeightsError
from inception.weights.names import Naming

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The evaluation of the released code.
_RELEASED = Preprocessing()
# Inception_V3_Weights scales by ImageNet's mean and standard deviation; the network, which
# torchvision loads with transform_input=True, scales back to [-1, 1].
_TORCHVISION = Preprocessing(method="resize_crop", crop_fraction=299 / 342)
# timm rounds 299 / 0.875 down.
_TIMM = replace(_TORCHVISION, crop_fraction=299 / 341, interpolation="bicubic")
_WHOLE = Preprocessing(method="resize", crop_fraction=1.0)

_COMMON: dict[str, Any] = {"batch_norm_epsilon": 1e-3, "batch_norm_group": 0}  # the whole batch
_KERAS_MODEL = _COMMON | {"batch_norm_decay": 0.99, "dropout_rate": 0.0}
_TENSORFLOW_MODEL = _COMMON | {"batch_norm_decay": 0.9997, "dropout_rate": 0.2}
_TORCH_MODEL = _COMMON | {
    "batch_norm_scale": True,
    "batch_norm_decay": 0.9,
    "dropout_rate": 0.5,
    "avg_pool_counts_padding": True,
}


@dataclass(frozen=True)
class Source:
    """A source of weights.

    Attributes:
      naming: Names and layout of its tensors.
      model: Fields of `Inception` that make it the source's network, in training too.
      preprocessing: Preprocessing that its weights expect.
      background: Whether class 0 of 1001 is the background.
    """

    naming: Naming
    model: dict[str, Any]
    preprocessing: Preprocessing
    background: bool = False


_TIMM_SOURCE = Source(names.TORCH, _TORCH_MODEL | {"dropout_rate": 0.0}, _TIMM)
SOURCES: dict[str, Source] = {
    "torchvision": Source(names.TORCH, _TORCH_MODEL, _TORCHVISION),
    "timm": _TIMM_SOURCE,  # weights of your own; config.json next to them has the scaling
    "timm.tf_in1k": _TIMM_SOURCE,
    "timm.tf_adv_in1k": _TIMM_SOURCE,
    "timm.tv_in1k": _TIMM_SOURCE,
    "timm.gluon_in1k": replace(
        _TIMM_SOURCE, preprocessing=replace(_TIMM, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    ),
    "keras": Source(names.KERAS, _KERAS_MODEL, _WHOLE),
    "slim": Source(names.SLIM, _TENSORFLOW_MODEL, _RELEASED, background=True),
    "tensorflow-inception": Source(names.RESEARCH, _TENSORFLOW_MODEL, _RELEASED, background=True),
    "fid": Source(
        names.TORCH,
        _TORCH_MODEL | {"avg_pool_counts_padding": False, "mixed_7c_pool": "max"},
        _WHOLE,
    ),
}

FID_CLASSES = 1008
_TAG = re.compile(r"(tf|tf_adv|tv|gluon)_in1k|(tf|adv|gluon)_inception_v3")
_OLD = {"adv": "tf_adv"}  # timm's names before tags


def recognize(tensors: Tensors, path: str | Path) -> str:
    """The source of a file, one of `SOURCES`.

    Tensors of torchvision and timm have the same names. A file is timm's if its path or the
    config.json next to it, as on Hugging Face, names one of timm's tags; otherwise a file in
    PyTorch's own format counts as torchvision's.

    Raises:
      WeightsError: If the tensors are not an Inception-v3's, or timm's tag is ambiguous.
    """
    for name in ("torchvision", "keras", "slim", "tensorflow-inception"):
        sample = names.table(SOURCES[name].naming, ["params/Mixed_5b/branch1x1/conv/kernel"])
        if not tensors.shapes.keys().isdisjoint(sample.values()):
            return _torch_source(tensors, path) if name == "torchvision" else name
    found = ", ".join(sorted(tensors.shapes)[:5])
    raise WeightsError(
        f"{path} is not an Inception-v3 of {', '.join(SOURCES)}. Its {len(tensors.shapes)} tensors "
        f"are {found}, ..."
    )


def _torch_source(tensors: Tensors, path: str | Path) -> str:
    if tag := timm_tag(path):
        return f"timm.{tag}"
    if timm_config.read(path):
        return "timm"
    aux_head = any(name.startswith(names.TORCH.aux_head) for name in tensors.shapes)
    if not aux_head and tensors.shapes.get("fc.bias") == (FID_CLASSES,):
        return "fid"
    if tensors.format == "safetensors":
        raise ambiguous_tag(path)
    return "torchvision"


def timm_tag(path: str | Path) -> str:
    """The tag of timm's weights from the config.json next to the file or from its path, or ""."""
    tag = timm_config.tag(path)
    if tag and f"timm.{tag}" not in SOURCES:
        return ""
    own = _nearest_tag(Path(Path(path).name))
    if tag and own and tag != own:
        raise _ambiguous_tag(
            path, f"{Path(path).name} names {own}, but config.json next to it {tag}"
        )
    tag = tag or own or _nearest_tag(Path(path).absolute().parent)
    return tag if f"timm.{tag}" in SOURCES else ""


def _nearest_tag(path: Path) -> str:
    """The tag in the last part of a path that names one, or ""."""
    for part in reversed(path.parts):
        tags = {f"{_OLD.get(m[2], m[2] or m[1])}_in1k" for m in _TAG.finditer(part)}
        if len(tags) > 1:
            raise _ambiguous_tag(path, f"{part!r} names {' and '.join(sorted(tags))}")
        if tags:
            return tags.pop()
    return ""


def _ambiguous_tag(path: str | Path, why: str) -> WeightsError:
    return WeightsError(f"{path}: {why}. Name the source, such as timm.tf_in1k")


def ambiguous_tag(path: str | Path) -> WeightsError:
    """The error for weights of timm without a tag: their scaling of the input is unknown."""
    choices = ", ".join(name for name in SOURCES if name.startswith("timm."))
    return WeightsError(
        f"{path} does not state which of timm's weights it has. Name {choices}; or, for weights of "
        "your own, timm with --mean and --std"
    )
