"""flax_naive.py's network trained and used as tutorials have it, and as a side of the benchmark."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from benchmarks.flax_naive import network
from benchmarks.ours import (
    config_of,
    device_bytes,
    random_variables,
    repeated,
    synthetic_batch,
)
from benchmarks.work import Side, Work


@struct.dataclass
class State:
    """What a training step changes."""

    params: Any
    batch_stats: Any
    opt_state: Any
    averages: Any
    rng: jax.Array


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Clipping, weight decay of the kernels, RMSProp."""
    kernels = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.add_decayed_weights(config.weight_decay, kernels),
        optax.rmsprop(
            config.learning_rate,
            decay=config.rmsprop_decay,
            eps=config.rmsprop_epsilon,
            momentum=config.momentum,
            initial_scale=1.0,
            eps_in_sqrt=True,
        ),
    )


@partial(jax.jit, static_argnames=("net", "smoothing", "aux_weight", "decay", "tx"))
def train_step(state: State, images, labels, *, net, tx, smoothing, aux_weight, decay):
    """One step on uint8 images; returns the next state and the loss."""
    rng, dropout = jax.random.split(state.rng)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, net.num_classes), smoothing)

    def loss_function(params):
        (logits, aux), updates = net.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images / 127.5 - 1,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        loss += aux_weight * optax.softmax_cross_entropy(aux, targets).mean()
        return loss, updates["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averages = optax.incremental_update((params, batch_stats), state.averages, 1 - decay)
    return State(params, batch_stats, opt_state, averages, rng), loss


def train(work: Work) -> Side:
    """The training step, without augmentation."""
    config = config_of(work)
    net, tx = network(config, work.num_classes), optimizer(config)
    images = jnp.zeros((1, work.size, work.size, 3))
    variables, batch = jax.jit(net.init)(jax.random.key(0), images), synthetic_batch(work)
    params, batch_stats = variables["params"], variables["batch_stats"]
    averages = jax.tree.map(jnp.copy, (params, batch_stats))
    state = State(params, batch_stats, tx.init(params), averages, jax.random.key(0))
    images, labels = jax.device_put((batch["image"], batch["label"]))
    outputs: Any = (state, None)

    def step() -> None:
        nonlocal outputs
        outputs = train_step(
            outputs[0],
            images,
            labels,
            net=net,
            tx=tx,
            smoothing=config.label_smoothing,
            aux_weight=config.aux_loss_weight,
            decay=config.ema_decay,
        )

    does = (
        "nn.BatchNorm over the batch, nn.max_pool, nn.avg_pool, a convolution per branch, both "
        "heads with label smoothing, optax's clipping, weight decay, RMSProp, running averages"
    )
    return Side(step, lambda: jax.block_until_ready(outputs), does, device_bytes)


def infer(work: Work) -> Side:
    """Evaluation from uint8 to logits, batch normalization as it is."""
    net = network(config_of(work), work.num_classes)
    variables = jax.device_put(random_variables(net, work.size))
    images = jax.device_put(synthetic_batch(work)["image"])
    forward = jax.jit(lambda variables, images: net.apply(variables, images / 127.5 - 1)[0])
    does = "uint8 to logits, nn.BatchNorm as it is"
    return Side(*repeated(lambda: forward(variables, images)), does, device_bytes)
