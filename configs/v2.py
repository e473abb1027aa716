"""Inception-v2, table 3's first row of the new networks: reported 23.4 % top-1 error.

Momentum SGD, one 7x7 convolution as the first layer, an auxiliary head whose fully connected layer
is not batch normalized, and no label smoothing.

    python main.py --config=configs/v2.py --workdir=runs/v2

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns base.py without the four things that table 3 adds."""
    config = base.get_config()
    config.optimizer = "momentum"
    config.label_smoothing = 0.0
    config.model.stem = "7x7"
    config.model.aux_head = "plain"
    return config
