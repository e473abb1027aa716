"""Section 5, figure 9 left: pool, then convolve; cheap, but a representational bottleneck.

The paper reports no accuracy for it.

    python main.py --config=configs/figure9_pool_first.py --workdir=runs/figure9_pool_first

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with figure 9's cheap reduction."""
    config = v3.get_config()
    config.model.reduction = "pool_first"
    return config
