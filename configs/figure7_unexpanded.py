"""Section 3.2, figure 7: the 8x8 modules without the expanded filter bank.

The last 3x3 convolutions are not split, as in figure 5, and have as many outputs. The paper reports
no accuracy for it.

    python main.py --config=configs/figure7_unexpanded.py --workdir=runs/figure7_unexpanded

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with figure 5's module on the 8x8 grid."""
    config = v3.get_config()
    config.model.expanded_filter_bank = False
    return config
