"""timm's folder of a model, as `push_to_hf_hub` writes it: config.json and model.safetensors."""

import math
from typing import Any

from inception.weights.pretrained import Pretrained

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
# timm's own crop modes. "squash" does not keep the aspect ratio, as "inception" and "resize" here;
# it resizes with antialiasing, which they do not.
_MODES = {"resize_crop": "center", "inception": "squash", "resize": "squash"}


def config(pretrained: Pretrained, license: str) -> dict[str, Any]:
    """The content of config.json.

    Args:
      pretrained: Weights of a network that timm has.
      license: Identifier, "" if not stated.
    """
    scaling, classes = pretrained.preprocessing, pretrained.model.num_classes
    size = scaling.image_size
    side = round(size / scaling.crop_fraction) if scaling.method != "resize" else size
    stated = {
        "custom_load": False,
        "input_size": [3, size, size],
        "fixed_input_size": False,
        "interpolation": scaling.interpolation,
        "crop_pct": math.nextafter(size / side, 0),  # timm resizes to floor(size / crop_pct)
        "crop_mode": _MODES[scaling.method],
        "mean": list(scaling.mean),
        "std": list(scaling.std),
        "num_classes": classes,
        "pool_size": [8, 8] if size == 299 else None,
        "first_conv": "Conv2d_1a_3x3.conv",
        "classifier": "fc",
    }
    return {
        "architecture": "inception_v3",
        "num_classes": classes,
        "num_features": 2048,
        "global_pool": "avg",
        **({"label_names": list(pretrained.labels)} if pretrained.labels else {}),
        "pretrained_cfg": stated | ({"license": license} if license else {}),
    }
