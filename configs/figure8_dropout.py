"""Section 4, figure 8: dropout in the auxiliary head instead of batch normalization.

The paper names it as the other regularizer of the auxiliary head, without a number.

    python main.py --config=configs/figure8_dropout.py --workdir=runs/figure8_dropout

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with dropout in the auxiliary head."""
    config = v3.get_config()
    config.model.aux_head = "dropout"
    return config
