"""Gluon's recipe, not the paper's: that of the best public weights, 78.8 % top-1 accuracy.

SGD with a cosine schedule, mixup, and no decay of biases and batch normalization (as everywhere
here). The weight decay is that of Gluon's training script.

    python main.py --config=configs/gluon.py --workdir=runs/gluon

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with the Gluon recipe."""
    config = v3.get_config()
    config.optimizer = "momentum"
    config.batch_size = 1024
    config.num_epochs = 200.0
    config.learning_rate = 0.4
    config.learning_rate_batch = 1024
    config.schedule = "cosine"
    config.warmup_epochs = 5.0
    config.mixup_alpha = 0.2
    config.weight_decay = 1e-4
    return config
