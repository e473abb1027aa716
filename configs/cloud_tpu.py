"""Google's Cloud TPU recipe, not the paper's: more than 78.1 % top-1 accuracy in 170 epochs.

    python main.py --config=configs/cloud_tpu.py --workdir=runs/cloud_tpu

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with the Cloud TPU recipe."""
    config = v3.get_config()
    config.batch_size = 1024
    config.num_epochs = 170.0
    config.learning_rate = 0.165
    config.learning_rate_batch = 256
    config.decay_epochs = 3.0
    config.ema_decay = 0.995
    config.model.batch_norm_decay = 0.996
    return config
