"""Other people's Inception-v3, their weights in our tree, and slim's colours."""

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

# slim's distort_color, copied from its text: fast_mode=False.
SLIM_COLOUR_ORDERS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)

# The convolutions of a block in the order in which Keras creates (and so numbers) them.
_STEM = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
_DOUBLE = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]
_FIGURE5 = ["branch1x1", "branch5x5_1", "branch5x5_2", *_DOUBLE, "branch_pool"]
_FIGURE6 = [
    "branch1x1",
    *[f"branch7x7_{i}" for i in (1, 2, 3)],
    *[f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)],
    "branch_pool",
]
_FIGURE7 = [
    "branch1x1",
    *[f"branch3x3_{i}" for i in ("1", "2a", "2b")],
    *[f"branch3x3dbl_{i}" for i in ("1", "2", "3a", "3b")],
    "branch_pool",
]
_MIXED = {
    **dict.fromkeys(["Mixed_5b", "Mixed_5c", "Mixed_5d"], _FIGURE5),
    "Mixed_6a": ["branch3x3", *_DOUBLE],
    **dict.fromkeys(["Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"], _FIGURE6),
    "Mixed_7a": ["branch3x3_1", "branch3x3_2", *[f"branch7x7x3_{i}" for i in (1, 2, 3, 4)]],
    **dict.fromkeys(["Mixed_7b", "Mixed_7c"], _FIGURE7),
}
_TORCH = {
    **{"kernel": "weight", "scale": "weight", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var"},
}
KERAS_ORDER = [
    *[(name,) for name in _STEM],
    *[(block, name) for block, names in _MIXED.items() for name in names],
]


def from_keras(theirs, shapes: dict) -> dict:
    """Random weights and statistics, set in Keras's network and returned in the tree `shapes`."""
    variables = _random(shapes)
    convolutions = _numbered(theirs, "conv2d")
    normalizations = _numbered(theirs, "batch_normalization")
    assert len(convolutions) == len(normalizations) == len(KERAS_ORDER)
    for conv, norm, path in zip(convolutions, normalizations, KERAS_ORDER, strict=True):
        params = functools.reduce(dict.__getitem__, path, variables["params"])
        stats = functools.reduce(dict.__getitem__, path, variables["batch_stats"])["bn"]
        conv.set_weights([params["conv"]["kernel"]])
        norm.set_weights([params["bn"]["bias"], stats["mean"], stats["var"]])
    return variables


def _numbered(model, kind: str) -> list:
    """The layers called KIND, KIND_1, ... in the order of their creation."""
    named = [layer for layer in model.layers if re.fullmatch(rf"{kind}(_\d+)?", layer.name)]
    return sorted(named, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or [0])[0]))


def torchvision_logits(images: np.ndarray, shapes: dict, num_classes: int):
    """Main and side logits of [batch, 299, 299, 3] for random weights, which come back in our tree.

    torchvision runs in a process of its own (tests/torchvision_oracle.py): in one process with
    TensorFlow, whichever comes second can crash.
    """
    variables = _random(shapes)
    state = {}
    for tree in variables.values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *names, last = (key.key for key in path)
            name = ".".join(names).replace("Logits", "fc").replace("Auxfc", "AuxLogits")
            if last == "kernel":
                leaf = leaf.T if leaf.ndim == 2 else leaf.transpose(3, 2, 0, 1)
            state[f"{name}.{_TORCH[last]}"] = leaf
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/in.npz", images=images.transpose(0, 3, 1, 2), **state)
        oracle = Path(__file__).with_name("torchvision_oracle.py")
        subprocess.run([sys.executable, oracle, folder, str(num_classes)], check=True)
        outputs = np.load(f"{folder}/out.npz")
        return variables, outputs["logits"], outputs["aux"]


def _random(shapes: dict) -> dict:
    """Weights that keep activations near 1, and statistics that matter."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)
        low, high = (0.5, 1.5) if kind in ("var", "scale") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)
