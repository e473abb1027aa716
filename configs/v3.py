"""Inception-v3: table 3, "+ BN-auxiliary"; reported 21.2 % top-1 and 5.6 % top-5 error.

    python main.py --config=configs/v3.py --workdir=runs/v3

Our result: not run (no ImageNet here).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns base.py as it is: its defaults are the full recipe."""
    return base.get_config()
