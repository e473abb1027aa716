"""The state of a run: weights, statistics, optimizer state and their running averages."""

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
from inception.network.model import HEADS, Inception, blank_image, make_model, variables_of
from inception.training import optimizers


@struct.dataclass
class TrainState:
    """The whole state of a run; a checkpoint is this and the config.

    Attributes:
      seed: Seed of all random choices, uint32 []; in the state so that runs with different seeds
        share a compiled program.
      step: Number of completed steps, int32 [].
      params: Weights, float32.
      batch_stats: Running averages of batch normalization.
      opt_state: State of the optax chain.
      ema_params: Running average of `params`, which the paper evaluates.
      ema_batch_stats: Running average of `batch_stats`, as in the released code.
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
          grads: Gradients of `params`.
          batch_stats: Batch statistics after this step.
          optimizer: Optimizer that `opt_state` belongs to.
          decay: Decay of the running averages, at step n min(decay, (1 + n) / (10 + n)).
          frozen: Stages that do not change, bit for bit.
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
        """The next state after a step that is skipped: only the number of steps changes.

        The optimizer's own counts too, since its learning rate depends on them.
        """

        def count(leaf: jax.Array) -> jax.Array:
            return leaf + 1 if jnp.issubdtype(leaf.dtype, jnp.integer) else leaf

        opt_state = jax.tree.map(count, self.opt_state)
        return dataclasses.replace(self, step=self.step + 1, opt_state=opt_state)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The network, optimizer and schedule of a run, see `build`.

    Attributes:
      config: Config of the run.
      model: The network.
      schedule: Learning rate by step.
      optimizer: See `optimizers.make_optimizer`.
      num_steps: Number of steps of the whole run.
      frozen: Stages that are not trained.
    """

    config: ConfigDict
    model: Inception
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    num_steps: int
    frozen: tuple[str, ...]

    def blocks(self, params: dict[str, Any]) -> list[str]:
        """The stages and heads that have weights, in the network's order."""
        return [name for name in (*self.model.stages(), *HEADS) if name in params]

    def create_state(self, mesh: Mesh) -> TrainState:
        """The first state, on every device of `mesh`; a pure function of config.seed."""
        init = jax.jit(self._init, out_shardings=sharding.replicated(mesh))
        return init(jnp.uint32(self.config.seed))

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Shapes, types and shardings of the state, to restore into. Computes nothing."""
        return sharding.abstract(mesh, jax.eval_shape(self._init, jnp.uint32(self.config.seed)))

    @cached_property
    def _init(self) -> Callable[[jax.Array], TrainState]:
        return jax.jit(self._first_state)  # JAX traces it once for all callers

    def _first_state(self, seed: jax.Array) -> TrainState:
        # On JAX 0.12 this program compiles for minutes with the partitionable generator. The state
        # is not split, so the other one gives the same weights on any number of devices.
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
    """Builds the network and the optimizer of a run from its config and the size of its data.

    Args:
      config: Config of the run.
      num_classes: Number of classes of the data set.
      steps_per_epoch: Training images divided by the batch size.
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
