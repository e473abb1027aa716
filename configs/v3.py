"""Table 3, + BN-auxiliary = Inception-v3: reported 21.2 % top-1 and 5.6 % top-5 error.

The fully connected layer of the auxiliary head is batch normalized too. This equals base.py.

    python main.py --config=configs/v3.py --workdir=runs/v3

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v2_factorized_7x7


def get_config() -> ConfigDict:
    """Returns v2_factorized_7x7.py with the batch normalized auxiliary head."""
    config = v2_factorized_7x7.get_config()
    config.model.aux_head = "bn"
    return config
