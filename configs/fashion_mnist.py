"""Inception-v3 at a quarter of the width on Fashion-MNIST, for ablations on two cores.

60,000 gray 28x28 images of ten kinds of clothes to train on and 10,000 to evaluate on, enlarged to
75x75. `python -m inception.data.prepare --dataset=fashion_mnist` downloads them; with
`--manual_dir=/usr/share/datasets/fashion-mnist` it takes those of Debian's package
dataset-fashion-mnist.

    python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Our result for three seeds: 10.0, 10.5 and 11.0 % top-1 error (docs/ablation/README.md).
"""

from ml_collections import ConfigDict

from configs import digits


def get_config() -> ConfigDict:
    """Returns digits.py for a data set that is forty times as large."""
    config = digits.get_config()
    config.dataset = "fashion_mnist"
    config.augmentation = "flip"
    config.num_epochs = 2.0
    config.weight_decay = 4e-5
    config.model.dropout_rate = 0.2
    config.model.batch_norm_group = 32
    config.model.batch_norm_decay = 0.99  # of 3,750 steps
    config.eval.split = "test"
    config.eval.batch_size = 250
    config.eval.crop_fraction = 1.0  # training sees whole images
    config.eval.every_epochs = 1.0
    config.log_every_steps = 100
    config.checkpoint_every_steps = 1000
    return config
