"""Every field of a run, one row each: its default, the values it may have and its meaning.

The defaults are the full recipe, Inception-v3 as section 8 of arXiv 1512.00567 trains it. "Released
code" is Google's TensorFlow implementation (research/inception, then slim). A file of configs/ is
these plus a change, and a command sets single fields: `--config.batch_size=256`.

The config.json of an older version's run may lack a field, which then has its default: so the
default of a new field must be what was done before the field existed.
"""

import copy

from flax import traverse_util
from ml_collections import ConfigDict

from inception.fields import (
    FRACTION,
    POSITIVE,
    STEPS,
    SWITCH,
    TEXT,
    Field,
    above_0,
    at_least,
    one_of,
    three,
)
from inception.network.model import NETWORK_CHOICES

# The fields and values without which some others have no effect.
_RMSPROP = ("optimizer", ("rmsprop",))
_STAIRCASE = ("schedule", ("staircase",))
_AUX_HEAD = ("model.aux_head", ("plain", "bn", "dropout"))
_SINGLE_CROP = ("eval.crops", (1,))

_RANDOMNESS = {
    "seed": Field(
        0, at_least(0, 2**32 - 1), "Seed of initial weights, order, crops, colors and dropout."
    ),
}

# What is read, and the released code's preprocessing.
_DATA = {
    "dataset": Field("imagenet2012", TEXT, 'Data set: a tfds name, "digits", "folder" or "fake".'),
    "data_dir": Field("", TEXT, "Folder or bucket of the data set; empty: ~/tensorflow_datasets."),
    "split": Field("train", TEXT, 'Any tfds split expression; for "folder" a folder\'s name.'),
    "image_size": Field(
        299, at_least(1, 4096), "Height and width of the input, in pixels (table 1)."
    ),
    "input_mean": Field(
        [0.5, 0.5, 0.5],
        three(at_least(-1e9)),
        "Means of red, green and blue; the input is (pixel / 255 - input_mean) / input_std.",
    ),
    "input_std": Field([0.5, 0.5, 0.5], three(POSITIVE), "Divisors of red, green and blue."),
    "augmentation": Field(
        "inception",
        one_of("inception", "inception_fast", "resnet", "flip", "affine", "none"),
        "Random changes of training images: see data/crops.py, data/augment.py (released code).",
    ),
    "on_bad_record": Field(
        "fail",
        one_of("fail", "skip"),
        'Response to an unreadable image in training; "skip" logs it, and the next of the '
        "permutation takes its place.",
    ),
    "max_pixels": Field(
        178_956_970, at_least(1), "Maximum number of pixels of an image: Pillow's limit, 537 MB."
    ),
    "data_threads": Field(0, at_least(0, 1024), "Decoding threads; 0: one per available core."),
}

# Section 8, and the losses of sections 4 and 7.
_TRAINING = {
    "batch_size": Field(
        1536,
        at_least(1),
        "Images per step over all devices: 48 groups of 32, in place of the paper's 50 replicas of "
        "32 (section 8), divide over 1, 2, 3, 4, 6, 8, 12 and 16 devices.",
    ),
    "accumulation_steps": Field(
        1, at_least(1, 4096), "Micro-batches per step; more of them use less memory."
    ),
    "num_epochs": Field(100.0, POSITIVE, "Epochs of the whole run (section 8)."),
    "dtype": Field(
        "float32",
        one_of("float32", "bfloat16"),
        "Type of activations; bfloat16 is for TPU and GPU. Weights stay float32.",
    ),
    "label_smoothing": Field(0.1, FRACTION, "Epsilon of section 7."),
    "aux_loss_weight": Field(
        0.4, POSITIVE, "Weight of the auxiliary head's loss (section 4; released code).", _AUX_HEAD
    ),
    "mixup_alpha": Field(
        0.0, at_least(0), "Mixup's Beta(alpha, alpha); 0: no mixup, as in the paper."
    ),
    "ema_decay": Field(
        0.9999,
        FRACTION,
        "Decay of the average of the weights that is evaluated (section 8); rises to this value as "
        "in the released code.",
    ),
}

# Another data set, from trained weights (training/finetune.py). Not in the paper.
_FINE_TUNING = {
    "init_from": Field(
        "",
        TEXT,
        "Weights to start from: a name such as torchvision, imported weights, a file of weights or "
        "a run. They set the fields FROM_WEIGHTS below.",
    ),
    "freeze_until": Field("", TEXT, "Last stage that is frozen, e.g. Mixed_6e; empty: none."),
    "body_learning_rate_factor": Field(
        1.0, at_least(0), "Factor of the learning rate for everything but the heads."
    ),
}

# Section 8: clipping, weight decay, RMSProp and its learning rate.
_OPTIMIZER = {
    "optimizer": Field("rmsprop", one_of("rmsprop", "momentum"), "Update rule (section 8)."),
    "rmsprop_decay": Field(0.9, FRACTION, "Decay of the mean square (section 8).", _RMSPROP),
    "rmsprop_epsilon": Field(1.0, POSITIVE, "Added to the mean square (section 8).", _RMSPROP),
    "momentum": Field(0.9, FRACTION, "Momentum, with either optimizer (released code)."),
    "clip_norm": Field(2.0, at_least(0), "Maximum norm of the gradient; 0: none (section 8)."),
    "weight_decay": Field(
        4e-5, at_least(0), "Factor of 0.5 ||w||^2 for kernels w, not biases (released code)."
    ),
    "learning_rate": Field(
        0.045,
        POSITIVE,
        "Rate for a batch of learning_rate_batch; proportional to batch_size (section 8).",
    ),
    "learning_rate_batch": Field(1600, at_least(1), "Batch size of learning_rate (section 8)."),
    "schedule": Field(
        "staircase",
        one_of("staircase", "cosine"),
        'Decay of the rate: "staircase" (section 8), or "cosine", to 0 at the end.',
    ),
    "decay_rate": Field(0.94, POSITIVE, "Factor of each stair (section 8).", _STAIRCASE),
    "decay_epochs": Field(2.0, POSITIVE, "Epochs of each stair (section 8).", _STAIRCASE),
    "warmup_epochs": Field(0.0, at_least(0), "Epochs over which the rate rises linearly from 0."),
}

# The fields of inception.Inception, whose docstring says more.
_NETWORK = {
    "model.outline": Field(
        "released", one_of(*NETWORK_CHOICES["outline"]), "Released network, or table 1 itself."
    ),
    "model.stem": Field(
        "factorized",
        one_of(*NETWORK_CHOICES["stem"]),
        "First layers: factorized into 3x3 or 7x7 (table 3); for small images (table 2).",
    ),
    "model.aux_head": Field(
        "bn", one_of(*NETWORK_CHOICES["aux_head"]), "Auxiliary head of figure 8 (section 4)."
    ),
    "model.width_multiplier": Field(1.0, above_0(16), "Factor of all channel counts."),
    "model.dropout_rate": Field(0.2, FRACTION, "Dropout before the logits (released code)."),
    "model.relu_between_3x3": Field(
        True, SWITCH, "Whether a ReLU is between figure 5's 3x3 convolutions (section 3.1)."
    ),
    "model.factorization": Field(
        "asymmetric", one_of(*NETWORK_CHOICES["factorization"]), "Figure 6's 7x7 (section 3.2)."
    ),
    "model.expanded_filter_bank": Field(
        True, SWITCH, "Whether the 8x8 grid has figure 7, or figure 5 (section 3.2)."
    ),
    "model.reduction": Field(
        "parallel",
        one_of(*NETWORK_CHOICES["reduction"]),
        "Grid reductions: figure 10, or one of the two of figure 9 (section 5).",
    ),
    "model.avg_pool_counts_padding": Field(
        False, SWITCH, "Whether average pools count the padding, as torchvision's do."
    ),
    "model.mixed_7c_pool": Field(
        "average", one_of(*NETWORK_CHOICES["mixed_7c_pool"]), 'Pool of Mixed_7c: "max" in FID.'
    ),
    "model.batch_norm_scale": Field(
        False, SWITCH, "Whether batch normalization learns a scale, as torchvision's does."
    ),
    "model.batch_norm_decay": Field(
        0.9997, FRACTION, "Decay of the running statistics (released code)."
    ),
    "model.batch_norm_epsilon": Field(1e-3, POSITIVE, "Added to the variance (released code)."),
    "model.batch_norm_group": Field(
        32, at_least(0), "Images normalized together, a replica (section 8); 0: the whole batch."
    ),
}

# A single crop, as in table 3, or as in tables 4 and 5.
_EVALUATION = {
    "eval.dataset": Field("", TEXT, "Data set to evaluate on; empty: that of training."),
    "eval.data_dir": Field("", TEXT, "Folder or bucket of the data set; empty: as in training."),
    "eval.split": Field(
        "validation", TEXT, "Any tfds split expression, or a folder's name: see split."
    ),
    "eval.batch_size": Field(
        256, at_least(1), "Crops that go through the devices at once, over all of them."
    ),
    "eval.every_epochs": Field(1.0, POSITIVE, "Epochs between evaluations during training."),
    "eval.preprocessing": Field(
        "inception",
        one_of("inception", "resize_crop", "resize"),
        "Crop and resize of an image: see data/preprocessing.py (released code).",
        _SINGLE_CROP,
    ),
    "eval.crop_fraction": Field(
        0.875, above_0(1), "Part of each side that is kept (released code).", _SINGLE_CROP
    ),
    "eval.crops": Field(1, one_of(1, 12, 144), "Crops per image (table 4)."),
    "eval.ensemble": Field(
        "", TEXT, "Networks averaged, PATH1,PATH2 (table 5): runs, checkpoints, or as init_from."
    ),
    "eval.exclude": Field(
        "", TEXT, "File that lists images to leave out, e.g. the challenge's blacklist."
    ),
    "eval.classes": Field(
        "all",
        one_of("all", "present"),
        'Classes that count: "present" is those of the split, for imagenet_a and imagenet_r.',
    ),
}

# What a run writes, and when.
_OUTPUT = {
    "log_every_steps": Field(100, at_least(1), "Steps between lines of metrics."),
    "checkpoint_every_steps": Field(
        1000, at_least(1), "Steps between checkpoints; one is saved before every evaluation too."
    ),
    "keep_checkpoints": Field(3, at_least(1), "Number of the newest checkpoints to keep."),
    "keep_every_epochs": Field(
        0.0, at_least(0), "Epochs between checkpoints that are kept as well; 0: none."
    ),
    "keep_best": Field(False, SWITCH, "Whether the best checkpoint by top-1 (EMA) is kept."),
}

# What is done about steps that go wrong, and ways to see what a run does.
_WATCH = {
    "max_nonfinite_steps": Field(
        10,
        at_least(1),
        "Steps in a row without a finite loss and gradient that end the run; such a step changes "
        "no weights.",
    ),
    "spike_factor": Field(
        5.0, at_least(0), "Factor over recent losses and gradient norms of a spike; 0: off."
    ),
    "profile_steps": Field("", STEPS, "Steps to trace into WORKDIR/profile, such as 10:13."),
    "deterministic": Field(
        False, SWITCH, "Whether a GPU repeats runs bit for bit, slower; others always do."
    ),
    "debug.nans": Field(
        False, SWITCH, "Whether to stop at the first operation that makes a NaN; slow."
    ),
}

GROUPS = {
    "Randomness": _RANDOMNESS,
    "Data": _DATA,
    "Training": _TRAINING,
    "Fine-tuning": _FINE_TUNING,
    "Optimizer": _OPTIMIZER,
    "Network": _NETWORK,
    "Evaluation": _EVALUATION,
    "Output": _OUTPUT,
    "Watch": _WATCH,
}
FIELDS: dict[str, Field] = {name: row for group in GROUPS.values() for name, row in group.items()}

# The fields that decide what weights compute, which `init_from` therefore sets. (A config's
# model.aux_head="none" stays: the weights' auxiliary head, if any, is then left out.)
FROM_WEIGHTS = (
    "input_mean",
    "input_std",
    "model.outline",
    "model.stem",
    "model.aux_head",
    "model.width_multiplier",
    "model.relu_between_3x3",
    "model.factorization",
    "model.expanded_filter_bank",
    "model.reduction",
    "model.avg_pool_counts_padding",
    "model.mixed_7c_pool",
    "model.batch_norm_scale",
    "model.batch_norm_epsilon",
)


def get_config() -> ConfigDict:
    """Returns the defaults of every field.

    `evaluations`, empty here, holds more evaluations at the end of a run: by name, the fields of
    `eval` in which each differs.
    """
    values = {name: copy.copy(field.default) for name, field in FIELDS.items()}
    return ConfigDict({**traverse_util.unflatten_dict(values, sep="."), "evaluations": {}})
