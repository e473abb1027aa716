"""The quick start: Inception-v3 at a quarter of the width on scikit-learn's handwritten digits.

    python main.py --config=configs/digits.py --workdir=runs/digits

1,437 real 8x8 images to train on and 360 to evaluate on, enlarged to 75x75, the smallest input of
the network.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py for a small data set: minutes instead of days."""
    config = v3.get_config()
    config.dataset = "digits"
    config.image_size = 75
    config.augmentation = "affine"  # mirrored digits are not digits
    config.batch_size = 32
    config.num_epochs = 40.0
    config.learning_rate = 0.05  # see docs/decisions.md
    config.learning_rate_batch = 32
    config.schedule = "cosine"
    config.weight_decay = 5e-4  # there are few images
    config.model.width_multiplier = 0.25
    config.model.dropout_rate = 0.5
    config.model.batch_norm_group = 16  # noisier statistics regularize
    config.model.batch_norm_decay = 0.9  # a run of 1,800 steps is too short for 0.9997
    config.eval.batch_size = 120
    config.eval.every_epochs = 8.0
    config.log_every_steps = 45  # about an epoch
    config.checkpoint_every_steps = 450
    return config
