"""Every field of a run, once: its meaning, unit and default, and below them its possible values.

The defaults are the full recipe (Inception-v3, section 8 of arXiv 1512.00567). "Released code" is
Google's TensorFlow implementation (research/inception, then slim). A file of configs/ is these plus
a change; a command sets single fields: `--config.batch_size=256`.

A run of an older version, whose config.json lacks a field, is given the default: so the default of
a new field must be what was done before there was one.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the defaults of every field."""
    config = ConfigDict()
    config.seed = 0  # decides initial weights, order of examples, crops, colours and dropout
    _data(config)
    _training(config)
    _fine_tuning(config)
    _optimizer(config)
    _network(config)
    _evaluation(config)
    _output(config)
    _watch(config)
    return config


def _data(config: ConfigDict) -> None:
    """What is read, and the released code's preprocessing."""
    config.dataset = "imagenet2012"  # a tfds name, "digits", "folder" or "fake"
    config.data_dir = ""  # where it lies; empty: tfds's own default, ~/tensorflow_datasets
    config.split = "train"  # any tfds split expression; a folder's name for "folder"
    config.image_size = 299  # pixels, height and width of the network's input
    # Of red, green, blue in [0, 1]; the network's input is (pixel / 255 - mean) / std.
    config.input_mean = [0.5, 0.5, 0.5]
    config.input_std = [0.5, 0.5, 0.5]
    config.augmentation = "inception"  # "inception_fast", "resnet", "flip" or "none"
    config.on_bad_record = "fail"  # or "skip" in training: log it, take the next of the permutation
    config.max_pixels = 178_956_970  # a larger image is a bad record; Pillow's limit, 537 MB
    config.data_threads = 0  # threads that decode; 0: one per core that the process may use


def _training(config: ConfigDict) -> None:
    """Section 8, and the losses of sections 4 and 7."""
    # 1536 = 48 groups of 32 stands in for the paper's 50 replicas of 32 and divides over 1, 2, 3,
    # 4, 6, 8, 12 and 16 devices with whole groups on each.
    config.batch_size = 1536  # images per step over all devices
    config.accumulation_steps = 1  # micro-batches per step: more of them need less memory
    config.num_epochs = 100.0
    config.dtype = "float32"  # of activations; "bfloat16" on TPU and GPU. Masters stay float32
    config.label_smoothing = 0.1  # epsilon of section 7
    config.aux_loss_weight = 0.4  # released code
    config.mixup_alpha = 0.0  # Beta(alpha, alpha) of mixup; 0: off, as in the paper
    config.ema_decay = 0.9999  # of the weights that are evaluated; ramped as in the released code


def _fine_tuning(config: ConfigDict) -> None:
    """Not in the paper: another data set, from weights that are there (finetune.py)."""
    # What inception.weights.load_any takes: imported weights, a file of them, a run, or the name of
    # published ones, such as "torchvision". The fields FROM_WEIGHTS below become theirs.
    config.init_from = ""
    config.freeze_until = ""  # this stage and those before it stay as they are: "Mixed_6e"
    config.body_learning_rate_factor = 1.0  # x the learning rate, of all but the heads


def _optimizer(config: ConfigDict) -> None:
    """Section 8: clipping, weight decay, RMSProp and its learning rate."""
    config.optimizer = "rmsprop"  # or "momentum"
    config.rmsprop_decay = 0.9
    config.rmsprop_epsilon = 1.0
    config.momentum = 0.9  # released code, for both optimizers
    config.clip_norm = 2.0  # global norm of the gradient; 0: no clipping
    config.weight_decay = 4e-5  # x 0.5 ||w||^2 over convolution and linear kernels, released code

    # Grows linearly with the batch: learning_rate x batch_size / learning_rate_batch.
    config.learning_rate = 0.045
    config.learning_rate_batch = 1600  # the paper's 50 x 32
    config.schedule = "staircase"  # x decay_rate every decay_epochs; or "cosine" to 0
    config.decay_rate = 0.94
    config.decay_epochs = 2.0
    config.warmup_epochs = 0.0  # linear from 0


def _network(config: ConfigDict) -> None:
    """The fields of inception.Inception, explained there."""
    config.model = ConfigDict()
    config.model.outline = "released"
    config.model.stem = "factorized"
    config.model.aux_head = "bn"
    config.model.width_multiplier = 1.0
    config.model.dropout_rate = 0.2
    config.model.relu_between_3x3 = True
    config.model.factorization = "asymmetric"
    config.model.expanded_filter_bank = True
    config.model.reduction = "parallel"
    config.model.avg_pool_counts_padding = False
    config.model.mixed_7c_pool = "average"
    config.model.batch_norm_scale = False
    config.model.batch_norm_decay = 0.9997
    config.model.batch_norm_epsilon = 1e-3
    config.model.batch_norm_group = 32


def _evaluation(config: ConfigDict) -> None:
    """Single crop, as in table 3, or as in tables 4 and 5."""
    config.eval = ConfigDict()
    config.eval.dataset = ""  # empty: that of training
    config.eval.data_dir = ""  # empty: that of training
    config.eval.split = "validation"
    config.eval.batch_size = 256  # crops that go through the devices at once, over all of them
    config.eval.every_epochs = 1.0
    config.eval.preprocessing = "inception"  # or another method of inception/data/preprocessing.py
    config.eval.crop_fraction = 0.875  # released code
    config.eval.crops = 1  # 1, 12 or 144 of table 4
    # "PATH1,PATH2": these together, as in table 5: runs, checkpoints or what `init_from` takes.
    config.eval.ensemble = ""
    config.eval.exclude = ""  # a file that lists images to leave out, as the challenge's blacklist
    config.eval.classes = "all"  # "present": only those of the split, for imagenet_a and imagenet_r

    # More evaluations at the end of a run: by name, the fields of `eval` in which each differs.
    config.evaluations = ConfigDict()


def _output(config: ConfigDict) -> None:
    """What a run writes, and when."""
    config.log_every_steps = 100
    config.checkpoint_every_steps = 1000  # and before every evaluation
    config.keep_checkpoints = 3  # the newest ones
    config.keep_every_epochs = 0.0  # and, saved for this, one every so many epochs; 0: none
    config.keep_best = False  # and the best by top-1 (EMA)


def _watch(config: ConfigDict) -> None:
    """What is done about steps that go wrong, and ways to see what a run does."""
    # A step whose loss or gradient is not finite changes no weights; so many in a row end the run.
    config.max_nonfinite_steps = 10
    # A loss or gradient norm above this x its median over the last 100 steps is recorded; 0: off.
    config.spike_factor = 5.0
    config.profile_steps = ""  # "10:13": trace steps 10 to 13 into WORKDIR/profile
    config.deterministic = False  # on a GPU: equal bits in every run, slower; others always do so
    config.debug = ConfigDict()
    config.debug.nans = False  # stop at the first operation that makes a NaN and name it; slow


# The fields without which weights mean something else; `init_from` sets them. (`model.aux_head`
# stays "none" where it is: then the weights' side head, if any, is left out.)
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

# The values of each field; those of `model` are inception.Inception's own to check.
CHOICES = {
    "augmentation": ("inception", "inception_fast", "resnet", "flip", "none"),
    "dtype": ("float32", "bfloat16"),
    "on_bad_record": ("fail", "skip"),
    "optimizer": ("rmsprop", "momentum"),
    "schedule": ("staircase", "cosine"),
    "eval.preprocessing": ("inception", "resize_crop", "resize"),
    "eval.crops": (1, 12, 144),
    "eval.classes": ("all", "present"),
}
POSITIVE = (
    "image_size",
    "max_pixels",
    "batch_size",
    "accumulation_steps",
    "num_epochs",
    "rmsprop_epsilon",
    "aux_loss_weight",
    "learning_rate",
    "learning_rate_batch",
    "decay_rate",
    "decay_epochs",
    "eval.batch_size",
    "eval.every_epochs",
    "eval.crop_fraction",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "max_nonfinite_steps",
)
NOT_NEGATIVE = (
    "seed",
    "body_learning_rate_factor",
    "data_threads",
    "keep_every_epochs",
    "mixup_alpha",
    "clip_norm",
    "weight_decay",
    "warmup_epochs",
    "spike_factor",
)
FRACTIONS = ("label_smoothing", "ema_decay", "rmsprop_decay", "momentum")
# More than any run needs: beyond, a typing error takes all memory, or a 32-bit number overflows.
AT_MOST = {
    "seed": 2**32 - 1,
    "image_size": 4096,
    "data_threads": 1024,
    "batch_size": 2**20,
    "accumulation_steps": 4096,
    "eval.batch_size": 2**20,
    "eval.crop_fraction": 1,
    "model.width_multiplier": 16,
    "model.batch_norm_group": 2**20,
    "keep_checkpoints": 10_000,
}
MOST = 1e9  # of all other numbers
LEAST = 1e-30  # but 0: float32 makes 0 of less
MAX_GIB = 64  # of the uint8 images of a batch, over all hosts; each keeps about four batches
# Where the first field has none of these values, the others play no part.
SWITCHES = (
    ("optimizer", ("rmsprop",), ("rmsprop_decay", "rmsprop_epsilon")),
    ("schedule", ("staircase",), ("decay_rate", "decay_epochs")),
    ("model.aux_head", ("plain", "bn", "dropout"), ("aux_loss_weight",)),
    ("eval.crops", (1,), ("eval.preprocessing", "eval.crop_fraction")),
)
