"""All that a run is: its weights, statistics, optimizer state and their running averages."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception.distributed import sharding
from inception.network.model import Inception, blank_image, make_model, variables_of
from inception.training import optimizers


@struct.dataclass
class TrainState:
    """The whole state of a run; a checkpoint is this and the config.

    Attributes:
      seed: of all random choices, uint32 []; here, so that runs of other seeds share a program.
      step: completed steps, int32 [].
      params: float32 weights.
      batch_stats: running averages of batch normalization.
      opt_state: of the optax chain.
      ema_params: running average of `params`, which is what the paper evaluates.
      ema_batch_stats: running average of `batch_stats`, as in the released code.
    """

    seed: jax.Array
    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any
    ema_batch_stats: Any

    def variables(self, weights: str) -> dict:
        """The model's variables with the "raw" or the "ema" weights."""
        return variables_of(weights, vars(self))

    def apply_gradients(
        self,
        grads: Any,
        batch_stats: Any,
        optimizer: optax.GradientTransformation,
        decay: float,
        frozen: Sequence[str] = (),
    ) -> "TrainState":
        """The next state: an optimizer step, then a step of the running averages.

        Args:
          grads: like params.
          batch_stats: after this step.
          optimizer: whose state this one holds.
          decay: of the running averages, ramped as min(decay, (1 + n) / (10 + n)) at step n.
          frozen: stages that stay as they are, bit for bit.
        """
        keep = partial(_keep, frozen)
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        params = keep(self.params, optax.apply_updates(self.params, updates))
        batch_stats = keep(self.batch_stats, batch_stats)
        step = self.step.astype(jnp.float32)
        ramped = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

        def average(new: Any, old: Any) -> Any:
            return keep(old, optax.incremental_update(new, old, 1 - ramped))

        return dataclasses.replace(
            self,
            step=self.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema_params=average(params, self.ema_params),
            ema_batch_stats=average(batch_stats, self.ema_batch_stats),
        )

    def skip(self) -> "TrainState":
        """The next state after a step that is left out: it counts, and changes nothing else.

        The optimizer's own counts go on, for its learning rate is that of the step.
        """

        def count(leaf: jax.Array) -> jax.Array:
            return leaf + 1 if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf

        opt_state = jax.tree.map(count, self.opt_state)
        return dataclasses.replace(self, step=self.step + 1, opt_state=opt_state)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a run is made of, see `build`.

    Attributes:
      config: of the run.
      model: the network.
      schedule: the learning rate by step.
      optimizer: see `optimizers.make_optimizer`.
      num_steps: of the whole run.
      frozen: the stages that are not trained.
    """

    config: ConfigDict
    model: Inception
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    num_steps: int
    frozen: tuple[str, ...]

    def create_state(self, mesh: Mesh) -> TrainState:
        """The first state, on every device of `mesh`; a pure function of config.seed."""
        init = jax.jit(self._init, out_shardings=sharding.replicated(mesh))
        return init(jnp.uint32(self.config.seed))

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Shapes, types and shardings of the state, to restore into; computes nothing."""
        return sharding.abstract(mesh, jax.eval_shape(self._init, jnp.uint32(self.config.seed)))

    @cached_property
    def _init(self) -> Callable[[jax.Array], TrainState]:
        return jax.jit(self._first_state)  # which JAX traces once, whoever asks for it

    def _first_state(self, seed: jax.Array) -> TrainState:
        # On JAX 0.12 the partitionable generator makes this program compile for minutes; the state
        # is not split, so the plain one gives the same weights on any number of devices.
        with jax.threefry_partitionable(False):
            variables = self.model.init(jax.random.key(seed), blank_image(self.config.image_size))
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(
            seed=seed,
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=self.optimizer.init(params),
            ema_params=params,
            ema_batch_stats=batch_stats,
        )


def build(config: ConfigDict, num_classes: int, steps_per_epoch: float) -> Recipe:
    """Puts a run together from its config and its data's sizes.

    Args:
      config: of the run.
      num_classes: of the data set.
      steps_per_epoch: training images over the batch size.
    """
    schedule = optimizers.learning_rate(config, steps_per_epoch)
    model = make_model(config, num_classes)
    stages = model.stages()
    return Recipe(
        config=config,
        model=model,
        schedule=schedule,
        optimizer=optimizers.make_optimizer(config, schedule),
        num_steps=optimizers.num_steps(config, steps_per_epoch),
        frozen=stages[: stages.index(config.freeze_until) + 1] if config.freeze_until else (),
    )


def _keep(stages: Sequence[str], old: dict, new: dict) -> dict:
    return new | {stage: old[stage] for stage in stages if stage in old}  # pools have no weights
