"""Table 3, + label smoothing (section 7): reported 22.8 % top-1 and 6.1 % top-5 error.

    python main.py --config=configs/v2_label_smoothing.py --workdir=runs/v2_label_smoothing

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v2_rmsprop


def get_config() -> ConfigDict:
    """Returns v2_rmsprop.py with label smoothing."""
    config = v2_rmsprop.get_config()
    config.label_smoothing = 0.1
    return config
