"""Section 4, figure 8: an auxiliary head whose fully connected layer is not normalized.

Reported: 21.6 % top-1 error, and 21.2 % with batch normalization there (v3.py).

    python main.py --config=configs/figure8_plain.py --workdir=runs/figure8_plain

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with the plain auxiliary head."""
    config = v3.get_config()
    config.model.aux_head = "plain"
    return config
