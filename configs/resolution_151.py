"""Table 2, receptive field 151x151, stride 1 and a pool: reported 76.4 % top-1 accuracy.

Costs the same as 299x299.

    python main.py --config=configs/resolution_151.py --workdir=runs/resolution_151

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import resolution_299


def get_config() -> ConfigDict:
    """Returns resolution_299.py at 151 pixels with stride 1 in the first layer."""
    config = resolution_299.get_config()
    config.image_size = 151
    config.model.stem = "factorized_stride1"
    return config
