"""Inception-v3, also evaluated on ImageNet's other test sets at the end of the run.

    python main.py --config=configs/v3_robustness.py --workdir=runs/v3_robustness

ImageNet-v2 (arXiv 1902.10811), the reassessed labels "ReaL" (arXiv 2006.07159), and ImageNet-A and
-R (arXiv 1907.07174, 2006.16241), these two among their own 200 classes only. Prepare each first:
`python -m inception.data.prepare --dataset=imagenet_v2`, imagenet2012_real, imagenet_a, imagenet_r.

Our result on ImageNet: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with four more evaluations."""
    config = v3.get_config()
    config.evaluations.v2 = ConfigDict({"dataset": "imagenet_v2", "split": "test"})
    config.evaluations.real = ConfigDict({"dataset": "imagenet2012_real"})
    of_200 = {"split": "test", "classes": "present"}
    config.evaluations.a = ConfigDict({"dataset": "imagenet_a", **of_200})
    config.evaluations.r = ConfigDict({"dataset": "imagenet_r", **of_200})
    return config
