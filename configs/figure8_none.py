"""Section 4, figure 8: no auxiliary head.

The paper reports that batch normalization in the auxiliary head (v3.py) is worth 0.4 % top-1.

    python main.py --config=configs/figure8_none.py --workdir=runs/figure8_none

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py without the auxiliary head."""
    config = v3.get_config()
    config.model.aux_head = "none"
    return config
