"""Table 3, + factorized 7x7: reported 21.6 % top-1 and 5.8 % top-5 error.

A sequence of 3x3 convolutions replaces the first 7x7 convolution.

    python main.py --config=configs/v2_factorized_7x7.py --workdir=runs/v2_factorized_7x7

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v2_label_smoothing


def get_config() -> ConfigDict:
    """Returns v2_label_smoothing.py with the factorized stem."""
    config = v2_label_smoothing.get_config()
    config.model.stem = "factorized"
    return config
