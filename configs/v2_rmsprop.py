"""Table 3, Inception-v2 + RMSProp: reported 23.1 % top-1 and 6.3 % top-5 error.

    python main.py --config=configs/v2_rmsprop.py --workdir=runs/v2_rmsprop

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v2


def get_config() -> ConfigDict:
    """Returns v2.py with RMSProp."""
    config = v2.get_config()
    config.optimizer = "rmsprop"
    return config
