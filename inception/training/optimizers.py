"""The paper's optimizer (section 8): gradient clipping, weight decay, RMSProp, staircase decay.

The order of the first two is our decision: the paper has clipping but no weight decay, and the
released code has weight decay but no clipping. Here the gradient of the classification loss is
clipped, and then the gradient of the L2 penalty is added. So the threshold means what it means in
the paper, and weight decay does not weaken when gradients are large.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from inception.errors import ConfigError
from inception.network.model import HEADS


def learning_rate(config: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
    """The learning rate of a step (0, 1, ...), float32.

    Its peak is config.learning_rate for a batch of config.learning_rate_batch images and grows
    linearly with the batch size. "staircase" multiplies it by decay_rate every decay_epochs;
    "cosine" decreases it to 0 at the end of the run. A warm-up, if any, rises linearly from 0.
    """
    peak = config.learning_rate * config.batch_size / config.learning_rate_batch
    warmup_steps = int(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "staircase":
        decay_steps = max(1, int(config.decay_epochs * steps_per_epoch))
        main = optax.exponential_decay(peak, decay_steps, config.decay_rate, staircase=True)
    else:
        main = optax.cosine_decay_schedule(
            peak, max(1, num_steps(config, steps_per_epoch) - warmup_steps)
        )
    if warmup_steps:
        warmup = optax.linear_schedule(0.0, peak, warmup_steps)
        main = optax.join_schedules([warmup, main], [warmup_steps])
    # Optax divides the step by numbers of steps; with JAX_ENABLE_X64 integers would give float64.
    return lambda step: jnp.asarray(main(jnp.asarray(step, jnp.float32)), jnp.float32)


def num_steps(config: ConfigDict, steps_per_epoch: float) -> int:
    """Number of steps of the whole run: num_epochs in batches, at least one.

    Raises:
      ConfigError: If it is more than the state can count.
    """
    steps = max(1, round(config.num_epochs * steps_per_epoch))
    if steps >= 2**31:
        raise ConfigError(
            f"config.num_epochs={config.num_epochs} is {steps:,} steps of "
            f"config.batch_size={config.batch_size}; at most 2,147,483,647 can be counted"
        )
    return steps


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clipping, then weight decay on kernels, then RMSProp as TensorFlow 1 has it, or momentum.

    TensorFlow's RMSProp starts its mean square at 1, adds epsilon inside the root, and applies
    the learning rate before the momentum. Last, config.body_learning_rate_factor scales the updates
    of all weights but those of the heads. That is another learning rate for them, since updates are
    linear in it.
    """
    if config.optimizer == "rmsprop":
        update = optax.rmsprop(
            schedule,
            decay=config.rmsprop_decay,
            eps=config.rmsprop_epsilon,
            momentum=config.momentum,
            initial_scale=1.0,
            eps_in_sqrt=True,
        )
    else:
        update = optax.sgd(schedule, momentum=config.momentum)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    decay = optax.add_decayed_weights(config.weight_decay, kernels)
    if config.body_learning_rate_factor == 1:
        return optax.chain(clip, decay, update)
    return optax.chain(
        clip, decay, update, optax.masked(optax.scale(config.body_learning_rate_factor), body)
    )


def kernels(params: dict) -> dict:
    """True for the kernels, convolutional and linear, which the released code decays."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def body(params: dict) -> dict:
    """True for all weights except those of the heads."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key not in HEADS, params)
