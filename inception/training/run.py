"""What computes the steps of a run, while it trains (loop.py) or is replayed (replay.py)."""

from collections.abc import Iterator
from functools import partial

import jax
from etils import epath
from ml_collections import ConfigDict

from inception import config as settings
from inception.data.datasets import check_trainable, train_batches
from inception.data.sources import Source
from inception.distributed import sharding
from inception.training import finetune
from inception.training.debugging import guarded
from inception.training.state import TrainState, build
from inception.training.step import TrainStep, check_normalization
from inception.weights import Pretrained
from inception.workdir.checkpoints import Checkpoints


class TrainingRun:
    """A run's data, network, optimizer and compiled step; nothing is written.

    Args:
      config: Config of the run, as `finetune.prepare` returns it.
      workdir: Workdir of the run.
      source: Training data.
      weights: Weights to start from; None for random ones.

    Attributes:
      mesh: All devices.
      steps_per_epoch: Training images divided by the batch size.
      recipe: The network and the optimizer.
      num_steps: Number of steps of the whole run.
      step: The compiled step.

    Raises:
      ConfigError: If the config does not fit the devices or the data.
      DataError: If a network cannot learn anything from the data.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: epath.PathLike,
        source: Source,
        weights: Pretrained | None = None,
    ):
        self.config, self.workdir = config, epath.Path(workdir)
        self.source, self.weights = source, weights
        self.mesh = sharding.make_mesh()
        settings.check_batch_size(config, self.mesh.size)
        check_trainable(config, source)
        self.steps_per_epoch = len(source) / config.batch_size
        self.recipe = build(config, source.num_classes, self.steps_per_epoch)
        check_normalization(self.recipe)
        self.num_steps = self.recipe.num_steps
        self.step = TrainStep(self.recipe, self.mesh)

    def first_state(self) -> TrainState:
        """The state before the first step."""
        state = self.recipe.create_state(self.mesh)
        if not self.weights:
            return state
        return finetune.start(state, self.weights, self.source.class_names, self.mesh)

    def restore(self, checkpoints: Checkpoints, step: int | None = None) -> TrainState:
        """The state of a checkpoint; None for the newest that is not damaged."""
        fresh = partial(self.recipe.create_state, self.mesh)
        return checkpoints.restore(self.recipe.abstract_state(self.mesh), step, init_missing=fresh)[
            1
        ]

    def batches(self, first_step: int) -> Iterator[dict[str, jax.Array]]:
        """The batches of the steps after `first_step`, on the devices."""
        return train_batches(self.config, self.source, self.mesh, first_step)

    def compute(
        self, step: int, state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """The state after a step and its metrics, see `train_step`.

        Args:
          step: Number of the step, 1 for the first.
          state: State before it, as `self.step.pack` returns it; its memory is given away.
          batch: Batch of the step.

        Raises:
          TrainingError: If the step makes a NaN and config.debug.nans is set.
        """
        with guarded(step, self.config.debug.nans):
            return self.step(state, batch)
