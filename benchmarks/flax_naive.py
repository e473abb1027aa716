"""The obvious Inception-v3 in Flax, trained and used as in tutorials.

The figures as the paper draws them, of nn.Conv, nn.BatchNorm over the whole batch, nn.max_pool and
nn.avg_pool. Parameters and statistics have our names, so `Network.apply` takes the variables of
`inception.Inception`.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from benchmarks.cases import Case, Contender
from benchmarks.ours import config_of, device_bytes, random_variables, repeated, synthetic_batch
from inception.network import layers
from inception.network.model import Inception
from inception.network.modules import MakeConv
from inception.ops.platforms import reference


class ConvBN(layers.ConvBN):
    """Convolution, batch normalization, ReLU."""

    def setup(self) -> None:
        """Creates both, under our names."""
        self.conv: Any = nn.Conv(
            self.width,
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            use_bias=self.norm is None,
            kernel_init=nn.initializers.truncated_normal(self.stddev),
            dtype=self.dtype,
        )
        self.bn: Any = self.norm() if self.norm else lambda x: x

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        x = self.bn(self.conv(x))
        return nn.relu(x) if self.relu else x


class Network(Inception):
    """Inception with these layers; the fields are those of `Inception`.

    Attributes:
      fast_variance: Flax's default; False rounds less, for comparisons.
    """

    fuse: bool = False
    fast_variance: bool = True

    def __call__(self, images, train=False):  # type: ignore[override]
        """Maps float [batch, height, width, 3] to the logits of both heads, float32."""
        with reference("max_pool", "conv"):
            logits, endpoints = super().__call__(images, train, aux_head=True)
        return logits, endpoints["aux_logits"]  # XLA drops them where they are unused

    def _conv(self, train: bool) -> MakeConv:
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_decay,
            epsilon=self.batch_norm_epsilon,
            use_scale=self.batch_norm_scale,
            use_fast_variance=self.fast_variance,
            dtype=self.dtype,
        )
        return partial(ConvBN, norm=norm, width_multiplier=self.width_multiplier, dtype=self.dtype)


def network(config: ConfigDict, num_classes: int) -> Network:
    """Builds the config's network."""
    return Network(num_classes=num_classes, dtype=jnp.dtype(config.dtype), **config.model)


@struct.dataclass
class State:
    """What a training step updates."""

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
    """Makes a step on uint8 [batch, size, size, 3]; returns the next state and the loss."""
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


def train(case: Case) -> Contender:
    """The training step, without augmentation."""
    config = config_of(case)
    net, tx = network(config, case.num_classes), optimizer(config)
    images = jnp.zeros((1, case.size, case.size, 3))
    variables, batch = jax.jit(net.init)(jax.random.key(0), images), synthetic_batch(case)
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

    description = (
        "nn.BatchNorm over the batch, nn.max_pool, nn.avg_pool, a convolution per branch, both "
        "heads with label smoothing, optax's clipping, weight decay, RMSProp, running averages"
    )
    return Contender(step, lambda: jax.block_until_ready(outputs), description, device_bytes)


def infer(case: Case) -> Contender:
    """Inference from uint8 to logits, with unfolded batch normalization."""
    net = network(config_of(case), case.num_classes)
    variables = jax.device_put(random_variables(net, case.size))
    images = jax.device_put(synthetic_batch(case)["image"])
    forward = jax.jit(lambda variables, images: net.apply(variables, images / 127.5 - 1)[0])
    description = "uint8 to logits, nn.BatchNorm unfolded"
    return Contender(*repeated(lambda: forward(variables, images)), description, device_bytes)
