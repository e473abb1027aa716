"""Training: the data-parallel step, and the loop around it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import augment, losses, optimizers, sharding
from inception import config as config_lib
from inception import workdir as runs
from inception.checkpoints import Checkpoints
from inception.data.sources import Source, open_source
from inception.data.stream import train_stream
from inception.errors import ConfigError, UserError
from inception.evaluate import Evaluator, leave
from inception.logbook import Logbook, log, summary
from inception.model import Inception
from inception.preemption import Interrupted, preemption
from inception.state import TrainState, abstract_state, create_state, make_model


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on; the message says where it stopped and what is safe."""


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    config: ConfigDict,
    model: Inception,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of section 8 on a global batch.

    Args:
      state: before the step.
      batch: "image" uint8 [batch, size, size, 3], "label", "epoch" and "example" int32 [batch].
      config: of the run.
      model: the network.
      optimizer: see `optimizers.make_optimizer`.
      schedule: the learning rate, for the metrics.

    Returns:
      The state after it and the metrics: "loss", "main_loss", "aux_loss", "top1", "grad_norm"
      (before clipping), "learning_rate", "weight_norm" (after the step, so that weights which are
      not finite are noticed before they are saved).
    """
    images = augment.augment(
        augment.keys(state.seed, batch["epoch"], batch["example"]),
        batch["image"],
        config.augmentation,
    )
    mixup_key, dropout_key = jax.random.split(
        jax.random.fold_in(jax.random.key(state.seed), state.step)
    )
    targets = losses.smooth_targets(batch["label"], model.num_classes, config.label_smoothing)
    if config.mixup_alpha:
        images, targets = augment.mixup(mixup_key, images, targets, config.mixup_alpha)

    steps = config.accumulation_steps
    deal = partial(_micro_batches, steps=steps, group=model.batch_norm_group)
    grads, (batch_stats, metrics) = _mean_over(
        partial(_gradients, state, config, model, dropout_key),
        (jnp.arange(steps), deal(images), deal(targets), deal(batch["label"])),
    )
    metrics["grad_norm"] = optax.tree.norm(grads)
    metrics["learning_rate"] = schedule(state.step)
    state = state.apply_gradients(grads, batch_stats, optimizer, config.ema_decay)
    metrics["weight_norm"] = optax.tree.norm(state.params)
    return state, metrics


def _gradients(state: TrainState, config: ConfigDict, model: Inception, key, micro_batch):
    """Gradients, batch statistics and metrics of one micro-batch."""
    number, images, targets, labels = micro_batch

    def loss_function(params):
        (logits, endpoints), updates = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(key, number)},
        )
        loss, parts = losses.heads_loss(logits, endpoints, targets, config.aux_loss_weight)
        top1 = (logits.argmax(axis=-1) == labels).mean()
        return loss, (updates["batch_stats"], {"loss": loss, **parts, "top1": top1})

    grads, aux = jax.grad(loss_function, has_aux=True)(state.params)
    return grads, aux


def _micro_batches(array: jax.Array, steps: int, group: int) -> jax.Array:
    """Deals the groups of a batch out to micro-batches, [steps, batch / steps, ...].

    Whole groups go round robin, so that every device deals out its own images and a group is
    normalized together whatever the number of micro-batches.
    """
    size = array.shape[0] // steps
    group = group if group and size % group == 0 else size
    dealt = array.reshape(-1, steps, group, *array.shape[1:]).swapaxes(0, 1)
    return dealt.reshape(steps, size, *array.shape[1:])


def _mean_over(function: Callable, micro_batches):
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
        unroll=jax.default_backend() == "cpu",  # convolutions in a loop are very slow there
    )
    return jax.tree.map(lambda leaf: leaf / steps, total)


class Trainer:
    """A run in `workdir`: its data, its network, its step. `train` is its front door.

    Raises:
      ConfigError: if the config does not fit the devices or the data; nothing is written before.
    """

    def __init__(
        self, config: ConfigDict, workdir: str | Path, train_source: Source, eval_source: Source
    ):
        self.config, self.workdir, self.source = config, Path(workdir), train_source
        self.mesh = sharding.make_mesh()
        config_lib.check_batch_size(config, self.mesh.size)
        if config.eval.ensemble:
            raise ConfigError(
                f"config.eval.ensemble={config.eval.ensemble!r} is for evaluation, --mode=eval; a "
                "run trains one network"
            )
        if eval_source.num_classes != train_source.num_classes:
            raise ConfigError(
                f"{config.dataset}: {config.split!r} has {train_source.num_classes} classes and "
                f"config.eval.split={config.eval.split!r} has {eval_source.num_classes}"
            )
        self.steps_per_epoch = len(train_source) / config.batch_size
        self.num_steps = optimizers.num_steps(config, self.steps_per_epoch)
        self.schedule = optimizers.learning_rate(config, self.steps_per_epoch)
        self.optimizer = optimizers.make_optimizer(config, self.schedule)
        self.model = make_model(config, train_source.num_classes)
        self.evaluator = Evaluator(config, eval_source, [self.model], self.mesh)
        self.step = compile_step(config, self.model, self.optimizer, self.schedule, self.mesh)

    def run(self) -> dict:
        """Trains from the newest checkpoint, or from the start, to the end; then evaluates."""
        with Checkpoints(self.workdir, self.config.keep_checkpoints) as saved:
            state = self._first_state(saved)
            first_step = int(state.step)
            self._say_what_runs(state, first_step)
            with (
                Logbook(self.workdir, first_step, self.num_steps, self.steps_per_epoch) as log,
                preemption() as stop,
            ):
                results = self._loop(state, first_step, saved, log, stop)
        leave(self.workdir, "results", results, self.source.class_names)
        return results

    def _first_state(self, saved: Checkpoints) -> TrainState:
        make = abstract_state if saved.steps() else create_state
        state = make(self.config, self.model, self.optimizer, self.mesh)
        return saved.restore(state)[1] if saved.steps() else state

    def _loop(
        self,
        state: TrainState,
        first_step: int,
        saved: Checkpoints,
        log: Logbook,
        stop: Callable[[], bool],
    ) -> dict:
        config = self.config
        batches = train_stream(
            config,
            self.source,
            start_step=first_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        batches = sharding.to_devices(self.mesh, batches)
        eval_every = max(1, round(config.eval.every_epochs * self.steps_per_epoch))
        pending: list[dict] = []  # metrics of the steps since the last look, still on the devices
        results: dict = {}
        for step in range(first_step + 1, self.num_steps + 1):
            state, metrics = self.step(state, next(batches))
            pending.append(metrics)
            first, last, stop_now = step == first_step + 1, step == self.num_steps, stop()
            log_now, save_now, evaluate_now = (
                last or step % every == 0
                for every in (config.log_every_steps, config.checkpoint_every_steps, eval_every)
            )
            save_now = save_now or stop_now
            if log_now or save_now or evaluate_now:
                log.train(step, config.batch_size, self._look(pending, step, saved))
                pending = []
            if save_now:
                saved.save(step, state)
            if stop_now and not last:
                raise Interrupted(f"stopped at step {step}; the same command continues from there")
            if evaluate_now:
                results = self.evaluator([state], step)
                log.evaluation(step, results)
            if first:
                jax.block_until_ready(metrics)
            if first or save_now or evaluate_now:  # compiling, saving, evaluating
                log.restart_clock(step)
        return results or self.evaluator([state], first_step)

    def _look(self, pending: list[dict], step: int, saved: Checkpoints) -> dict[str, float]:
        """The means of the metrics of the last steps, which must all be finite."""
        steps = jax.device_get(pending)
        for back, metrics in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            if not losses.all_finite(metrics):
                raise TrainingError(
                    f"step {step - back}: the loss is {metrics['loss']}, the gradient's norm "
                    f"{metrics['grad_norm']} and the weights' {metrics['weight_norm']} at learning "
                    f"rate {metrics['learning_rate']:.4g}. "
                    f"Nothing of it was saved; the last good checkpoint is "
                    f"{saved.steps()[-1] if saved.steps() else 'none'} in {saved.directory}. "
                    "A lower learning_rate, a longer warmup_epochs or a clip_norm may help"
                )
        return {name: float(np.mean([metrics[name] for metrics in steps])) for name in steps[0]}

    def _say_what_runs(self, state: TrainState, first_step: int) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        log(
            f"Inception: {count:,} parameters, {self.model.num_classes} classes; "
            f"{len(self.source):,} training images; "
            f"{self.mesh.size} {jax.devices()[0].device_kind} device(s), batch "
            f"{self.config.batch_size}, {self.num_steps:,} steps"
        )
        if first_step >= self.num_steps:
            log(f"{self.workdir} is finished: step {first_step} of {self.num_steps}")
        elif first_step:
            log(f"continuing from step {first_step}")


def compile_step(
    config: ConfigDict,
    model: Inception,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
) -> Callable:
    """`train_step` under jit: state replicated and donated, batch split over the mesh."""
    return jax.jit(
        partial(train_step, config=config, model=model, optimizer=optimizer, schedule=schedule),
        in_shardings=(sharding.replicated(mesh), sharding.split(mesh)),
        out_shardings=(sharding.replicated(mesh), sharding.replicated(mesh)),
        donate_argnums=0,
    )


def train(
    config: ConfigDict,
    workdir: str | Path,
    train_source: Source | None = None,
    eval_source: Source | None = None,
) -> dict:
    """Trains in `workdir`, or continues the run that it holds, and evaluates at the end.

    Args:
      config: see configs/base.py.
      workdir: receives config.json, checkpoints/, metrics.jsonl, TensorBoard's event files and
        results.json.
      train_source: images to train on; None for the config's.
      eval_source: images to evaluate on; None for the config's.

    Returns:
      The final evaluation, as in results.json.

    Raises:
      ConfigError: for a config that makes no sense.
      CheckpointError: if the workdir holds another config's run or cannot be written.
      TrainingError: when the loss is not finite.
      Interrupted: after Ctrl-C or SIGTERM, when the step has been saved.
    """
    config_lib.validate(config)
    workdir = runs.as_workdir(workdir)
    train_source = train_source or open_source(config, config.split)
    eval_source = eval_source or open_source(config, config.eval.split)
    trainer = Trainer(config, workdir, train_source, eval_source)
    runs.claim(workdir, config, train_source)
    results = trainer.run()
    log(summary(results))
    return results
