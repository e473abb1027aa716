"""Section 5, figure 9 right: convolve, then pool; no bottleneck, but expensive.

The paper reports no accuracy for it.

    python main.py --config=configs/figure9_convolve_first.py --workdir=runs/figure9_convolve_first

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with figure 9's expensive reduction."""
    config = v3.get_config()
    config.model.reduction = "convolve_first"
    return config
