"""The names of the network's tensors in every source.

A row is one convolution with its batch normalization. The rows of a block are in the order in which
the released code creates its convolutions, which is also Keras's numbering. torchvision, timm and
pytorch-fid use our names. Sources: slim/nets/inception_v3.py,
research/inception/inception/slim/inception_model.py, keras.applications.inception_v3,
torchvision.models.inception.

Our name of a tensor is its path, "params/Mixed_5b/branch1x1/conv/kernel". `table` maps our names to
a source's; `to_ours` and `to_source` change the layout of one tensor.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Our name: (slim, research/inception, position in a Keras 3 file, which sorts layers by depth)
Rows = dict[str, tuple[str, str, int]]

STEM: Rows = {
    "Conv2d_1a_3x3": ("Conv2d_1a_3x3", "conv0", 0),
    "Conv2d_2a_3x3": ("Conv2d_2a_3x3", "conv1", 1),
    "Conv2d_2b_3x3": ("Conv2d_2b_3x3", "conv2", 2),
    "Conv2d_3b_1x1": ("Conv2d_3b_1x1", "conv3", 3),
    "Conv2d_4a_3x3": ("Conv2d_4a_3x3", "conv4", 4),
}
FIGURE5: Rows = {
    "branch1x1": ("Branch_0/Conv2d_0a_1x1", "branch1x1/Conv", 3),
    "branch5x5_1": ("Branch_1/Conv2d_0a_1x1", "branch5x5/Conv", 1),
    "branch5x5_2": ("Branch_1/Conv2d_0b_5x5", "branch5x5/Conv_1", 4),
    "branch3x3dbl_1": ("Branch_2/Conv2d_0a_1x1", "branch3x3dbl/Conv", 0),
    "branch3x3dbl_2": ("Branch_2/Conv2d_0b_3x3", "branch3x3dbl/Conv_1", 2),
    "branch3x3dbl_3": ("Branch_2/Conv2d_0c_3x3", "branch3x3dbl/Conv_2", 5),
    "branch_pool": ("Branch_3/Conv2d_0b_1x1", "branch_pool/Conv", 6),
}
FIGURE5_5C: Rows = FIGURE5 | {  # slim's names are irregular here
    "branch5x5_1": ("Branch_1/Conv2d_0b_1x1", "branch5x5/Conv", 1),
    "branch5x5_2": ("Branch_1/Conv_1_0c_5x5", "branch5x5/Conv_1", 4),
}
REDUCTION_6A: Rows = {  # slim calls two 3x3 convolutions 1x1
    "branch3x3": ("Branch_0/Conv2d_1a_1x1", "branch3x3/Conv", 2),
    "branch3x3dbl_1": ("Branch_1/Conv2d_0a_1x1", "branch3x3dbl/Conv", 0),
    "branch3x3dbl_2": ("Branch_1/Conv2d_0b_3x3", "branch3x3dbl/Conv_1", 1),
    "branch3x3dbl_3": ("Branch_1/Conv2d_1a_1x1", "branch3x3dbl/Conv_2", 3),
}
FIGURE6: Rows = {
    "branch1x1": ("Branch_0/Conv2d_0a_1x1", "branch1x1/Conv", 6),
    "branch7x7_1": ("Branch_1/Conv2d_0a_1x1", "branch7x7/Conv", 2),
    "branch7x7_2": ("Branch_1/Conv2d_0b_1x7", "branch7x7/Conv_1", 4),
    "branch7x7_3": ("Branch_1/Conv2d_0c_7x1", "branch7x7/Conv_2", 7),
    "branch7x7dbl_1": ("Branch_2/Conv2d_0a_1x1", "branch7x7dbl/Conv", 0),
    "branch7x7dbl_2": ("Branch_2/Conv2d_0b_7x1", "branch7x7dbl/Conv_1", 1),
    "branch7x7dbl_3": ("Branch_2/Conv2d_0c_1x7", "branch7x7dbl/Conv_2", 3),
    "branch7x7dbl_4": ("Branch_2/Conv2d_0d_7x1", "branch7x7dbl/Conv_3", 5),
    "branch7x7dbl_5": ("Branch_2/Conv2d_0e_1x7", "branch7x7dbl/Conv_4", 8),
    "branch_pool": ("Branch_3/Conv2d_0b_1x1", "branch_pool/Conv", 9),
}
REDUCTION_7A: Rows = {
    "branch3x3_1": ("Branch_0/Conv2d_0a_1x1", "branch3x3/Conv", 2),
    "branch3x3_2": ("Branch_0/Conv2d_1a_3x3", "branch3x3/Conv_1", 4),
    "branch7x7x3_1": ("Branch_1/Conv2d_0a_1x1", "branch7x7x3/Conv", 0),
    "branch7x7x3_2": ("Branch_1/Conv2d_0b_1x7", "branch7x7x3/Conv_1", 1),
    "branch7x7x3_3": ("Branch_1/Conv2d_0c_7x1", "branch7x7x3/Conv_2", 3),
    "branch7x7x3_4": ("Branch_1/Conv2d_1a_3x3", "branch7x7x3/Conv_3", 5),
}
FIGURE7: Rows = {
    "branch1x1": ("Branch_0/Conv2d_0a_1x1", "branch1x1/Conv", 7),
    "branch3x3_1": ("Branch_1/Conv2d_0a_1x1", "branch3x3/Conv", 1),
    "branch3x3_2a": ("Branch_1/Conv2d_0b_1x3", "branch3x3/Conv_1", 3),
    "branch3x3_2b": ("Branch_1/Conv2d_0c_3x1", "branch3x3/Conv_2", 4),
    "branch3x3dbl_1": ("Branch_2/Conv2d_0a_1x1", "branch3x3dbl/Conv", 0),
    "branch3x3dbl_2": ("Branch_2/Conv2d_0b_3x3", "branch3x3dbl/Conv_1", 2),
    "branch3x3dbl_3a": ("Branch_2/Conv2d_0c_1x3", "branch3x3dbl/Conv_2", 5),
    "branch3x3dbl_3b": ("Branch_2/Conv2d_0d_3x1", "branch3x3dbl/Conv_3", 6),
    "branch_pool": ("Branch_3/Conv2d_0b_1x1", "branch_pool/Conv", 8),
}
FIGURE7_7B: Rows = FIGURE7 | {  # slim's name is irregular here
    "branch3x3_2b": ("Branch_1/Conv2d_0b_3x1", "branch3x3/Conv_2", 4),
}
AUX_HEAD: Rows = {  # not in Keras
    "conv0": ("Conv2d_1b_1x1", "proj", 0),
    "conv1": ("Conv2d_2a_5x5", "Conv", 1),
}

# Our and slim's name: (research/inception, rows)
BLOCKS: dict[str, tuple[str, Rows]] = {
    "Mixed_5b": ("mixed_35x35x256a", FIGURE5),
    "Mixed_5c": ("mixed_35x35x288a", FIGURE5_5C),
    "Mixed_5d": ("mixed_35x35x288b", FIGURE5),
    "Mixed_6a": ("mixed_17x17x768a", REDUCTION_6A),
    "Mixed_6b": ("mixed_17x17x768b", FIGURE6),
    "Mixed_6c": ("mixed_17x17x768c", FIGURE6),
    "Mixed_6d": ("mixed_17x17x768d", FIGURE6),
    "Mixed_6e": ("mixed_17x17x768e", FIGURE6),
    "Mixed_7a": ("mixed_17x17x1280a", REDUCTION_7A),  # a comment there says that 8x8 would be right
    "Mixed_7b": ("mixed_8x8x2048a", FIGURE7_7B),
    "Mixed_7c": ("mixed_8x8x2048b", FIGURE7),
}


def _rows() -> Iterable[tuple[str, str, str, int]]:
    """(ours, slim, research/inception, position in a Keras 3 file); the auxiliary head last."""
    start = len(STEM)
    for ours, (slim, research, place) in STEM.items():
        yield ours, slim, research, place
    for block, (old, rows) in BLOCKS.items():
        for ours, (slim, research, place) in rows.items():
            yield f"{block}/{ours}", f"{block}/{slim}", f"{old}/{research}", start + place
        start += len(rows)
    for ours, (slim, research, place) in AUX_HEAD.items():
        yield f"AuxLogits/{ours}", f"AuxLogits/{slim}", f"aux_logits/{research}", start + place


CONVOLUTIONS = [row[0] for row in _rows()]
# Keras 3's .weights.h5 numbers layers by depth: the number there of each of our convolutions.
KERAS3_PLACES = [row[3] for row in _rows()][: -len(AUX_HEAD)]


@dataclass(frozen=True)
class Naming:
    """The names and the layout of a source's tensors.

    Attributes:
      convolutions: Path of a convolution with its batch normalization, from ours to the source's.
      leaves: Name of a tensor of such a pair, from ours to the source's; "{}" is the path.
      heads: Name of a tensor of a linear layer, from ours to the source's.
      aux_head: Prefix of the auxiliary head's tensors; "" if the source has no auxiliary head.
      extras: Pattern of names that do not belong to the network and are left out.
      output_first: Whether kernels are [out, in, height, width] and [out, in], where ours are
        [height, width, in, out] and [in, out].
      linear_1x1: Whether linear layers are 1x1 convolutions.
    """

    convolutions: dict[str, str]
    leaves: dict[str, str]
    heads: dict[str, str]
    aux_head: str
    extras: str
    output_first: bool = False
    linear_1x1: bool = False


_TENSORFLOW_LEAVES = {
    "params/{}/conv/kernel": "{}/weights",
    "params/{}/bn/scale": "{}/BatchNorm/gamma",
    "params/{}/bn/bias": "{}/BatchNorm/beta",
    "batch_stats/{}/bn/mean": "{}/BatchNorm/moving_mean",
    "batch_stats/{}/bn/var": "{}/BatchNorm/moving_variance",
}
EMA = "/ExponentialMovingAverage"
_TENSORFLOW_EXTRAS = (
    r"(^|/)global_step$|/(RMSProp|Momentum|Adam|Adagrad)(_\d+)?$|beta\d_power$"
    r"|/(biased|local_step)$"
)

TORCH = Naming(
    convolutions={row[0]: row[0].replace("/", ".") for row in _rows()},
    leaves={
        "params/{}/conv/kernel": "{}.conv.weight",
        "params/{}/bn/scale": "{}.bn.weight",
        "params/{}/bn/bias": "{}.bn.bias",
        "batch_stats/{}/bn/mean": "{}.bn.running_mean",
        "batch_stats/{}/bn/var": "{}.bn.running_var",
    },
    heads={
        "params/Logits/kernel": "fc.weight",
        "params/Logits/bias": "fc.bias",
        "params/AuxLogits/fc/kernel": "AuxLogits.fc.weight",
        "params/AuxLogits/fc/bias": "AuxLogits.fc.bias",
    },
    aux_head="AuxLogits.",
    extras=r"\.num_batches_tracked$",
    output_first=True,
)
SLIM = Naming(
    convolutions={row[0]: f"InceptionV3/{row[1]}" for row in _rows()},
    leaves=_TENSORFLOW_LEAVES,
    heads={
        "params/Logits/kernel": "InceptionV3/Logits/Conv2d_1c_1x1/weights",
        "params/Logits/bias": "InceptionV3/Logits/Conv2d_1c_1x1/biases",
        "params/AuxLogits/fc/kernel": "InceptionV3/AuxLogits/Conv2d_2b_1x1/weights",
        "params/AuxLogits/fc/bias": "InceptionV3/AuxLogits/Conv2d_2b_1x1/biases",
    },
    aux_head="InceptionV3/AuxLogits/",
    extras=_TENSORFLOW_EXTRAS,
    linear_1x1=True,
)
RESEARCH = Naming(
    convolutions={row[0]: row[2] for row in _rows()},
    leaves=_TENSORFLOW_LEAVES,
    heads={
        "params/Logits/kernel": "logits/logits/weights",
        "params/Logits/bias": "logits/logits/biases",
        "params/AuxLogits/fc/kernel": "aux_logits/FC/weights",
        "params/AuxLogits/fc/bias": "aux_logits/FC/biases",
    },
    aux_head="aux_logits/",
    extras=_TENSORFLOW_EXTRAS,
)
# Numbered by creation from 0, as keras_names.py numbers the layers of a file.
KERAS = Naming(
    convolutions={name: str(number) for number, name in enumerate(CONVOLUTIONS)},
    leaves={
        "params/{}/conv/kernel": "conv2d_{}/kernel",
        "params/{}/bn/scale": "batch_normalization_{}/gamma",
        "params/{}/bn/bias": "batch_normalization_{}/beta",
        "batch_stats/{}/bn/mean": "batch_normalization_{}/moving_mean",
        "batch_stats/{}/bn/var": "batch_normalization_{}/moving_variance",
    },
    heads={
        "params/Logits/kernel": "predictions/kernel",
        "params/Logits/bias": "predictions/bias",
    },
    aux_head="",
    extras=r"^optimizer",
)


def table(naming: Naming, ours: Iterable[str]) -> dict[str, str]:
    """The source's name of each of our tensors, "params/..." or "batch_stats/...".

    Raises:
      KeyError: If the source has no name for a tensor.
    """
    names = dict(naming.heads)
    for mine, theirs in naming.convolutions.items():
        names |= {leaf.format(mine): name.format(theirs) for leaf, name in naming.leaves.items()}
    return {name: names[name] for name in ours}


def to_ours(naming: Naming, name: str, array: np.ndarray) -> np.ndarray:
    """The source's tensor in our layout; `name` is ours."""
    if naming.output_first and array.ndim > 1:
        array = array.transpose((2, 3, 1, 0) if array.ndim == 4 else (1, 0))
    return array.reshape(array.shape[-2:]) if name in naming.heads and array.ndim == 4 else array


def to_source(naming: Naming, name: str, array: np.ndarray) -> np.ndarray:
    """Our tensor in the source's layout; `name` is ours."""
    if naming.output_first and array.ndim > 1:
        return array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
    return array[None, None] if naming.linear_1x1 and array.ndim == 2 else array
