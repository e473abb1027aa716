"""Section 3.2: figure 6 with full 7x7 convolutions in place of 1x7 and 7x1.

The paper reports no accuracy for it.

    python main.py --config=configs/figure6_full.py --workdir=runs/figure6_full

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with full 7x7 convolutions in figure 6."""
    config = v3.get_config()
    config.model.factorization = "full"
    return config
