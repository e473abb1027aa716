"""All that a run is: its weights, statistics, optimizer state and their running averages."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception.model import Inception
from inception.sharding import replicated


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
        if weights == "raw":
            return {"params": self.params, "batch_stats": self.batch_stats}
        return {"params": self.ema_params, "batch_stats": self.ema_batch_stats}

    def apply_gradients(
        self, grads: Any, batch_stats: Any, optimizer: optax.GradientTransformation, decay: float
    ) -> "TrainState":
        """The next state: an optimizer step, then a step of the running averages.

        Args:
          grads: like params.
          batch_stats: after this step.
          optimizer: whose state this one holds.
          decay: of the running averages, ramped as min(decay, (1 + n) / (10 + n)) at step n.
        """
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        ramped = jnp.minimum(decay, (1.0 + self.step) / (10.0 + self.step))
        return dataclasses.replace(
            self,
            step=self.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema_params=optax.incremental_update(params, self.ema_params, 1 - ramped),
            ema_batch_stats=optax.incremental_update(batch_stats, self.ema_batch_stats, 1 - ramped),
        )


def make_model(config: ConfigDict, num_classes: int) -> Inception:
    """The config's network for a data set of `num_classes`."""
    return Inception(num_classes=num_classes, dtype=jnp.dtype(config.dtype), **config.model)


def create_state(
    config: ConfigDict, model: Inception, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """A run's first state, on every device of `mesh`; a pure function of config.seed."""
    init = jax.jit(_init(config, model, optimizer), out_shardings=replicated(mesh))
    return init(jnp.uint32(config.seed))


def abstract_state(
    config: ConfigDict, model: Inception, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, types and shardings of the state, to restore into; computes nothing."""
    shapes = jax.eval_shape(_init(config, model, optimizer), jnp.uint32(config.seed))
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def _init(config: ConfigDict, model: Inception, optimizer: optax.GradientTransformation):
    def init(seed: jax.Array) -> TrainState:
        images = jnp.zeros((1, config.image_size, config.image_size, 3))
        # On JAX 0.12 the partitionable generator makes this program compile for minutes; the state
        # is not split, so the plain one gives the same weights on any number of devices.
        with jax.threefry_partitionable(False):
            variables = model.init(jax.random.key(seed), images)
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(
            seed=seed,
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            ema_params=params,
            ema_batch_stats=batch_stats,
        )

    return init
