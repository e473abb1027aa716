"""Fine-tuning on another data set from trained weights. Not in the paper.

    python main.py --config=configs/finetune.py --workdir=runs/finetune \
        --config.init_from=WEIGHTS --config.dataset=folder --config.data_dir=PHOTOGRAPHS

WEIGHTS is a folder from python -m inception.weights import, anyone's file of weights, or a run's
workdir. The last layers start from random weights if the number of classes differs; the scaling of
the input, the padding and whatever else the weights were trained with come with them.
--config.freeze_until=Mixed_6e trains only what follows that stage. On the quick start's digits:

    python main.py --config=configs/digits.py --workdir=runs/digits_tuned \
        --config.init_from=WEIGHTS --config.learning_rate=0.01 --config.num_epochs=4

The values below are common ones, not tuned. Our result: not run.
"""

from ml_collections import ConfigDict

from configs import v3


def get_config() -> ConfigDict:
    """Returns v3.py with a short run at a low learning rate, for a small data set."""
    config = v3.get_config()
    config.dataset = "folder"
    config.augmentation = "resnet"
    config.batch_size = 64
    config.num_epochs = 20.0
    config.optimizer = "momentum"
    config.learning_rate = 0.02
    config.learning_rate_batch = 64
    config.body_learning_rate_factor = 0.1
    config.schedule = "cosine"
    config.warmup_epochs = 1.0
    config.ema_decay = 0.999
    config.model.batch_norm_decay = 0.99  # the run is too short for 0.9997
    config.log_every_steps = 20
    config.checkpoint_every_steps = 500
    return config
