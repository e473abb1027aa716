"""Every field of a run, said once: meaning, unit, and where the paper or the released code sets it.

The defaults are the full recipe (Inception-v3, section 8 of arXiv 1512.00567); the other files of
this folder are this one plus a change. "Released code" is Google's TensorFlow implementation
(research/inception, then slim). Any field can be overridden: `--config.batch_size=256`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the defaults of every field."""
    config = ConfigDict()
    config.seed = 0  # decides initial weights, order of examples, crops, colours and dropout
    _data(config)
    _training(config)
    _optimizer(config)
    _network(config)
    _evaluation(config)
    _output(config)
    return config


def _data(config: ConfigDict) -> None:
    """What is read, and the released code's preprocessing."""
    config.dataset = "imagenet2012"  # a tfds name, "digits", "folder" or "fake"
    config.data_dir = ""  # where it lies; empty: tfds's own default, ~/tensorflow_datasets
    config.split = "train"  # any tfds split expression; a folder's name for "folder"
    config.image_size = 299  # pixels, height and width of the network's input
    config.augmentation = "inception"  # "inception_fast", "resnet", "flip" or "none"
    config.on_bad_record = "fail"  # or "skip" in training: log it, take the next of the permutation
    config.data_threads = 0  # threads that decode; 0: one a core


def _training(config: ConfigDict) -> None:
    """Section 8, and the losses of sections 4 and 7."""
    # 1536 = 48 groups of 32 stands in for the paper's 50 replicas of 32 and divides over 1, 2, 3,
    # 4, 6, 8, 12 and 16 devices with whole groups on each.
    config.batch_size = 1536  # images a step over all devices
    config.accumulation_steps = 1  # micro-batches a step: more of them need less memory
    config.num_epochs = 100.0
    config.dtype = "float32"  # of activations; "bfloat16" on TPU and GPU. Masters stay float32
    config.label_smoothing = 0.1  # epsilon of section 7
    config.aux_loss_weight = 0.4  # released code
    config.mixup_alpha = 0.0  # Beta(alpha, alpha) of mixup; 0: off, as in the paper
    config.ema_decay = 0.9999  # of the weights that are evaluated; ramped as in the released code


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
    config.model.batch_norm_scale = False
    config.model.batch_norm_decay = 0.9997
    config.model.batch_norm_epsilon = 1e-3
    config.model.batch_norm_group = 32


def _evaluation(config: ConfigDict) -> None:
    """Single crop, as in table 3, or as in tables 4 and 5."""
    config.eval = ConfigDict()
    config.eval.split = "validation"
    config.eval.batch_size = 256  # crops that go through the devices at once, over all of them
    config.eval.every_epochs = 1.0
    config.eval.preprocessing = "inception"  # or "resize_crop": shorter side, then the centre
    config.eval.crop_fraction = 0.875  # released code
    config.eval.crops = 1  # 1, 12 or 144 of table 4
    config.eval.ensemble = ""  # "DIR1,DIR2": these runs (or checkpoints) together, as in table 5
    config.eval.exclude = ""  # a file that lists images to leave out, as the challenge's blacklist
    config.eval.classes = "all"  # "present": only those of the split, for imagenet_a and imagenet_r


def _output(config: ConfigDict) -> None:
    """What a run writes, and when."""
    config.log_every_steps = 100
    config.checkpoint_every_steps = 1000
    config.keep_checkpoints = 3  # the newest ones
