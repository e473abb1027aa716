"""The data-parallel training step (section 8).

A step whose loss, gradient or batch statistics are not finite is skipped: it changes no weights,
statistics, optimizer state or running averages, and only its number counts. The devices decide, so
the host does not wait. (Weights then stay finite, since the gradient's norm bounds their change.)
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from inception.data import augment
from inception.distributed import sharding
from inception.errors import ConfigError
from inception.network.layers import ConvBN
from inception.network.model import HEADS, Inception
from inception.ops import platforms
from inception.predict.predictor import has_answer
from inception.training import losses, packing
from inception.training.state import Recipe, TrainState


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    recipe: Recipe,
    abstract_state: TrainState | None = None,
    unroll: bool = False,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of section 8 on a global batch.

    Args:
      state: State before the step.
      batch: Its "image" is uint8 [batch, size, size, 3]; its "label", "epoch" and "example" are
        int32 [batch].
      recipe: The network, the optimizer and the config.
      abstract_state: Shapes of the unpacked state if `state` is packed (packing.py), else None.
      unroll: Whether micro-batches are unrolled instead of computed in a loop.

    Returns:
      The state after it and the metrics: "loss", "main_loss", "aux_loss", "top1", "grad_norm"
      (before clipping), "learning_rate", "weight_norm" (after the step), "finite" (bool: whether
      the step was applied) and "block_grad_norms" [blocks], see `Recipe.blocks`.
    """
    config, model = recipe.config, recipe.model
    images = augment.augment(
        augment.keys(state.seed, batch["epoch"], batch["example"]),
        batch["image"],
        config.augmentation,
        config.input_mean,
        config.input_std,
    )
    mixup_key, dropout_key = jax.random.split(
        jax.random.fold_in(jax.random.key(state.seed), state.step)
    )
    targets = losses.smooth_targets(batch["label"], model.num_classes, config.label_smoothing)
    if config.mixup_alpha:
        images, targets = augment.mixup(mixup_key, images, targets, config.mixup_alpha)

    steps = config.accumulation_steps
    split = partial(_micro_batches, steps=steps, group=model.batch_norm_group)
    grads, (batch_stats, metrics) = _mean_over(
        partial(_gradients, state, recipe, abstract_state, dropout_key),
        (jnp.arange(steps), split(images), split(targets), split(batch["label"])),
        unroll,
    )
    norms = jnp.stack([optax.tree.norm(grads[block]) for block in recipe.blocks(grads)])
    metrics["block_grad_norms"], metrics["grad_norm"] = norms, jnp.linalg.norm(norms)
    metrics["learning_rate"] = recipe.schedule(state.step)
    totals = (metrics["loss"], metrics["grad_norm"], optax.tree.norm(batch_stats))
    metrics["finite"] = jnp.isfinite(jnp.stack(totals)).all()

    def apply(state: TrainState, grads: Any, batch_stats: Any) -> TrainState:
        return state.apply_gradients(
            grads, batch_stats, recipe.optimizer, config.ema_decay, recipe.frozen
        )

    state = _apply_if(metrics["finite"], apply, state, grads, batch_stats)
    metrics["weight_norm"] = optax.tree.norm(state.params)
    return state, metrics


def check_normalization(recipe: Recipe) -> None:
    """Refuses a run whose batch normalization would make all images the same.

    The mean of one value is that value. So a group of one image on a grid of one pixel becomes 0
    whatever the image is: no layer before it is trained, and the running variances go to 0.

    Raises:
      ConfigError: Naming the layers and the field to increase.
    """
    config, model = recipe.config, recipe.model
    share = config.batch_size // config.accumulation_steps
    if min(model.batch_norm_group or share, share) > 1:
        return
    pixels = _normalized_pixels(model, recipe.frozen, config.image_size)
    if lonely := [layer for layer, count in pixels.items() if count == 1]:
        steps = f" in {config.accumulation_steps} micro-batches"
        batch = (
            f"config.batch_size={config.batch_size}{steps if config.accumulation_steps > 1 else ''}"
        )
        field = "config.model.batch_norm_group=1" if share > 1 else batch
        only = all(layer.startswith(HEADS) for layer in lonely)
        raise ConfigError(
            f"{field} leaves batch normalization one value per channel, which becomes 0 whatever "
            f"the image is, in {', '.join(lonely[:3])}{' and others' if len(lonely) > 3 else ''}. "
            "Let at least 2 images be normalized together, better 16"
            + (", or set config.model.aux_head=none" if only else "")
        )


def _normalized_pixels(model: Inception, frozen: Sequence[str], size: int) -> dict[str, int]:
    """Pixels of each grid that is normalized by batch statistics, by the convolution's name."""
    pixels = {}

    def note(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        y, layer = call(*args, **kwargs), context.module
        is_normalized = isinstance(layer, ConvBN) and layer.norm is not None
        if is_normalized and context.method_name == "__call__" and layer.path[0] not in frozen:
            pixels["/".join(layer.path)] = y.shape[1] * y.shape[2]
        return y

    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(model.clone(fuse=False).init, jax.random.key(0), image)
    return pixels


def _apply_if(finite: jax.Array, apply: Callable, state: TrainState, *arguments) -> TrainState:
    """apply(state, *arguments) if `finite`, else `state.skip()`.

    There are two ways because neither is good everywhere. On a CPU, selecting leaf by leaf costs as
    much as the update itself (v3.py: 134 ms for the update alone, 169 with a branch, 250 with
    selection). On a GPU, a branch makes the host wait for the device, and XLA fuses the selection
    into the update.
    """
    apply = jax.jit(apply)  # traced once for both ways

    def branch(finite: jax.Array, state: TrainState, *arguments) -> TrainState:
        return jax.lax.cond(finite, apply, lambda state, *_: state.skip(), state, *arguments)

    def select(finite: jax.Array, state: TrainState, *arguments) -> TrainState:
        applied, skipped = apply(state, *arguments), state.skip()
        return jax.tree.map(partial(jnp.where, finite), applied, skipped)

    return platforms.by_platform(finite, state, *arguments, cpu=branch, default=select)


def _gradients(
    state: TrainState,
    recipe: Recipe,
    abstract_state: TrainState | None,
    key: jax.Array,
    micro_batch: tuple,
):
    """Gradients, batch statistics and metrics of one micro-batch."""
    number, images, targets, labels = micro_batch
    params, statistics = state.params, state.batch_stats
    if abstract_state:
        params = packing.unpack(params, abstract_state.params)
        statistics = packing.unpack(statistics, abstract_state.batch_stats)

    def loss_function(params):
        (logits, endpoints), updates = recipe.model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(key, number)},
            frozen=recipe.frozen,
        )
        weight = recipe.config.aux_loss_weight
        loss, parts = losses.heads_loss(logits, endpoints, targets, weight)
        answers = jax.lax.argmax(logits, logits.ndim - 1, labels.dtype)
        hits = (answers == labels) & has_answer(logits)
        return loss, (updates["batch_stats"], {"loss": loss, **parts, "top1": hits.mean()})

    grads, (new_statistics, metrics) = jax.grad(loss_function, has_aux=True)(params)
    if abstract_state:
        grads, new_statistics = packing.pack(grads), packing.pack(new_statistics)
    return grads, (new_statistics, metrics)


def _micro_batches(array: jax.Array, steps: int, group: int) -> jax.Array:
    """Splits a batch into micro-batches of whole groups, [steps, batch / steps, ...].

    The groups are dealt out in turn, so that every device keeps its own images, and a group is
    normalized together whatever the number of micro-batches is.
    """
    size = array.shape[0] // steps
    group = group if group and size % group == 0 else size
    groups = array.reshape(-1, steps, group, *array.shape[1:]).swapaxes(0, 1)
    return groups.reshape(steps, size, *array.shape[1:])


def _mean_over(function: Callable, micro_batches: Any, unroll: bool):
    """The mean of function(micro_batch) over the leading axis, one micro-batch at a time."""
    first = jax.tree.map(lambda array: array[0], micro_batches)
    steps = len(jax.tree.leaves(micro_batches)[0])
    if steps == 1:
        return function(first)
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first)
    )
    total, _ = jax.lax.scan(
        lambda total, micro_batch: (jax.tree.map(jnp.add, total, function(micro_batch)), None),
        zeros,
        micro_batches,
        unroll=unroll,
    )
    return jax.tree.map(lambda leaf: leaf / steps, total)


class TrainStep:
    """`train_step` under jit: state replicated and donated, batch split over the mesh.

    On a GPU the state is packed between steps (packing.py): updating v3.py's leaf by leaf takes
    1,500 more kernel launches. With config.debug.nans the state is not donated, because a failed
    step is computed again. With config.deterministic a GPU computes the same bits in every run;
    other devices always do.

    Args:
      recipe: The network, the optimizer and the config.
      mesh: Devices to compile for.
      packed: Whether the state is packed; None: only on a GPU.

    Attributes:
      jitted: The function under jit, of a packed state and a batch.
    """

    def __init__(self, recipe: Recipe, mesh: Mesh, packed: bool | None = None):
        config, platform = recipe.config, mesh.devices.flat[0].platform
        self._packed = platform == "gpu" if packed is None else packed
        abstract_state = recipe.abstract_state(mesh)
        replicated = sharding.replicated(mesh)
        self._pack = jax.jit(packing.pack_state, out_shardings=replicated)
        self._unpack = jax.jit(
            partial(packing.unpack_state, abstract_state=abstract_state), out_shardings=replicated
        )
        self.jitted: Any = jax.jit(
            partial(
                platforms.compiled_for(platform)(train_step),
                recipe=recipe,
                abstract_state=abstract_state if self._packed else None,
                unroll=platform == "cpu",  # convolutions in a loop are very slow there
            ),
            in_shardings=(replicated, sharding.split(mesh)),
            out_shardings=replicated,
            donate_argnums=() if config.debug.nans else 0,
            compiler_options={"xla_gpu_deterministic_ops": True}
            if config.deterministic and platform == "gpu"
            else None,
        )

    def pack(self, state: TrainState) -> TrainState:
        """The state as a step takes and returns it."""
        return self._pack(state) if self._packed else state

    def unpack(self, state: TrainState) -> TrainState:
        """The inverse of `pack`."""
        return self._unpack(state) if self._packed else state

    def __call__(self, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, dict]:
        """See `train_step`."""
        return self.jitted(state, batch)
