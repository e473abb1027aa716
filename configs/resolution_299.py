"""Table 2, receptive field 299x299, stride 2 and a pool: reported 76.6 % top-1 accuracy.

    python main.py --config=configs/resolution_299.py --workdir=runs/resolution_299

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py, whose input is 299x299."""
    config = v3.get_config()
    config.image_size = 299
    return config
