"""Training: the loop around the step, and what a run writes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
from etils import epath
from ml_collections import ConfigDict

from inception import config as settings
from inception.data.datasets import (
    check_trainable,
    open_eval_source,
    open_train_source,
    train_batches,
)
from inception.data.sources import Source
from inception.distributed import processes, sharding
from inception.distributed.preemption import Interrupted, preemption
from inception.errors import ConfigError
from inception.evaluation.evaluate import write_results
from inception.evaluation.evaluator import Evaluator
from inception.training import agreement, finetune, overview
from inception.training.debugging import guarded
from inception.training.profiling import Profiler
from inception.training.state import TrainState, build
from inception.training.step import TrainStep, blocks, check_normalization
from inception.training.watch import StepMonitor
from inception.weights import Pretrained
from inception.workdir import retention
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.identity import check_classes, resolve_workdir, start_or_resume
from inception.workdir.lock import run_lock
from inception.workdir.logbook import MetricLogger, log, summary


@dataclass(frozen=True)
class _Session:
    """What a run writes to, and asks, from one start to its end.

    Attributes:
      saved: its checkpoints.
      logbook: its metrics.
      profiler: its traces.
      stop: whether it is to stop, see preemption.py; every process has to ask equally often.
      check_lock: raises CheckpointError if another run has the workdir by now; asked before
        anything is written.
    """

    saved: CheckpointWriter
    logbook: MetricLogger
    profiler: Profiler
    stop: Callable[[], bool]
    check_lock: Callable[[], None]


class Trainer:
    """A run in `workdir`: its data, its network, its step. `train_and_evaluate` is its front door.

    Raises:
      ConfigError: if the config does not fit the devices or the data; nothing is written before.
      DataError: if the data cannot be learned from.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: epath.PathLike,
        train_source: Source,
        eval_source: Source,
        named_sources: dict[str, Source] | None = None,
        weights: Pretrained | None = None,
    ):
        self.config, self.workdir, self.source = config, epath.Path(workdir), train_source
        self.weights = weights
        self.mesh = sharding.make_mesh()
        settings.check_batch_size(config, self.mesh.size)
        if config.eval.ensemble:
            raise ConfigError(
                f"config.eval.ensemble={config.eval.ensemble!r} is for evaluation, --mode=eval; a "
                "run trains one network"
            )
        self.steps_per_epoch = len(train_source) / config.batch_size
        check_trainable(config, train_source)
        self.recipe = build(config, train_source.num_classes, self.steps_per_epoch)
        check_normalization(self.recipe)
        self.num_steps = self.recipe.num_steps
        self.eval_every = max(1, round(config.eval.every_epochs * self.steps_per_epoch))
        self.evaluator = self._make_evaluator(config, eval_source)
        evaluations = settings.named_evaluations(config)
        self.named_evaluators = {
            name: self._make_evaluator(evaluations[name], source)
            for name, source in (named_sources or {}).items()
        }
        self.step = TrainStep(self.recipe, self.mesh)

    def _make_evaluator(self, config: ConfigDict, source: Source) -> Evaluator:
        if source.num_classes != self.recipe.model.num_classes:
            raise ConfigError(
                f"{self.config.dataset}: {self.config.split!r} has "
                f"{self.recipe.model.num_classes} classes and "
                f"config.eval.split={config.eval.split!r} has {source.num_classes}"
            )
        check_classes(self.config.dataset, self.source.class_names, source)
        return Evaluator(config, source, [self.recipe.model], self.mesh)

    def run(self, check_lock: Callable[[], None] = lambda: None) -> dict:
        """Trains from the newest checkpoint, or from the start, to the end; then evaluates.

        Args:
          check_lock: see `lock.run_lock`.
        """
        with CheckpointWriter(
            self.workdir, retention.from_config(self.config, self.steps_per_epoch)
        ) as saved:
            state = self._first_state(saved)
            first_step = int(state.step)
            self._log_what_runs(state, first_step)
            state = self.step.pack(state)  # here, where no name is left for what is unpacked
            with (
                MetricLogger(
                    self.workdir, first_step, self.num_steps, self.steps_per_epoch
                ) as logbook,
                Profiler(self.config.profile_steps, self.workdir) as profiler,
                preemption() as stop,
            ):
                session = _Session(saved, logbook, profiler, stop, check_lock)
                state, results = self._loop(state, first_step, session)
                saved.wait()  # results of a state that could not be saved are nobody's
                return self._finish(state, results, session)

    def _finish(self, state: TrainState, results: dict, session: _Session) -> dict:
        """Writes the final evaluation, and makes and writes those that are named."""
        session.check_lock()
        write_results(self.workdir, "results", results, self.source.class_names)
        for name, evaluator in self.named_evaluators.items():
            further = self._evaluate(evaluator, state, self.num_steps, session)
            log(f"{name}: {summary(further)}")
            session.check_lock()
            write_results(self.workdir, f"results_{name}", further, self.source.class_names)
            results.setdefault("evaluations", {})[name] = further
        return results

    def _first_state(self, saved: CheckpointWriter) -> TrainState:
        create = partial(self.recipe.create_state, self.mesh)
        if not saved.steps():
            names = self.source.class_names
            state = create()
            return finetune.start(state, self.weights, names, self.mesh) if self.weights else state
        return saved.restore(self.recipe.abstract_state(self.mesh), init_missing=create)[1]

    def _loop(
        self, state: TrainState, first_step: int, session: _Session
    ) -> tuple[TrainState, dict]:
        config, saved, logbook = self.config, session.saved, session.logbook
        results = self._make_up_evaluation(state, first_step, session)
        batches = train_batches(config, self.source, self.mesh, first_step)
        monitor, to_log = StepMonitor(config, blocks(state.params), logbook), 0
        for step in range(first_step + 1, self.num_steps + 1):
            batch = self._next(batches, state, step, monitor, session)
            session.profiler.before(step)
            with guarded(step, config.debug.nans):
                state, metrics = self.step(state, batch)
            session.profiler.after(step, metrics)
            if to_log:  # a step late: the devices go on while their metrics are fetched
                logged = monitor.collect()
                completed = step if metrics["loss"].is_ready() else to_log
                logbook.train(to_log, config.batch_size, logged, completed)
            monitor.add(step, metrics, batch)
            first, last, stop_now = step == first_step + 1, step == self.num_steps, session.stop()
            log_now = last or step % config.log_every_steps == 0
            evaluate_now = self._is_evaluated(step)
            # What is evaluated is saved before: it takes long, and it may fail.
            save_now = evaluate_now or stop_now or saved.policy.must_save(step)
            save_now = save_now or step % config.checkpoint_every_steps == 0
            to_log = step if log_now or save_now else 0
            if to_log:
                session.check_lock()
            # In this order: a run that is lost ends before it is saved as any other or evaluated; a
            # machine that is taken back gets its checkpoint before anything that takes long.
            if to_log and (first or save_now):
                logbook.train(step, config.batch_size, monitor.collect())
                to_log = 0
            if error := monitor.error(step):
                saved.save(step, self.step.unpack(state))
                raise error
            if save_now:
                saved.save(step, self.step.unpack(state))
            if stop_now:
                raise Interrupted(f"stopped at step {step}; the same command continues from there")
            if evaluate_now:
                results = self._evaluate(self.evaluator, state, step, session)
                logbook.evaluation(step, results)
            if first:
                jax.block_until_ready(metrics)
            if first or save_now:  # compiling, saving, evaluating
                logbook.restart_clock(step)
        return state, results

    def _is_evaluated(self, step: int) -> bool:
        return step >= self.num_steps or step % self.eval_every == 0

    def _next(
        self,
        batches: Iterator,
        state: TrainState,
        step: int,
        monitor: StepMonitor,
        session: _Session,
    ) -> dict[str, jax.Array]:
        """The batch of `step`. If it cannot be read, the state before it is saved first.

        Of several processes the others do not know, and wait in the step: there nothing is saved.
        """
        try:
            return next(batches)
        except Exception:
            if step > 1 and jax.process_count() == 1:
                session.check_lock()
                if monitor.is_waiting:
                    session.logbook.train(step - 1, self.config.batch_size, monitor.collect())
                session.saved.save(step - 1, self.step.unpack(state))
            raise

    def _evaluate(
        self, evaluator: Evaluator, state: TrainState, step: int, session: _Session
    ) -> dict:
        """Evaluates a state, which is saved as `step`.

        Raises:
          Interrupted: between two batches, if the run is to stop.
        """

        def look() -> None:
            if session.stop():
                raise Interrupted(
                    f"stopped in an evaluation of step {step}, which is saved; the same command "
                    "continues with this evaluation"
                )

        return evaluator([self.step.unpack(state)], step, look)

    def _make_up_evaluation(self, state: TrainState, step: int, session: _Session) -> dict:
        """Evaluates the state that the run continues with, if it should have been and was not.

        Returns:
          The results, which a run that is finished needs in any case; {} if nothing was due.
        """
        if not step or not self._is_evaluated(step):
            return {}
        known = "known" if retention.was_evaluated(self.workdir, step) else ""
        known = processes.gather_and_reduce(
            known, lambda texts: texts[0]
        )  # others may see an older file
        if known and step < self.num_steps:
            return {}
        results = self._evaluate(self.evaluator, state, step, session)
        if known:
            log(summary(results))
        else:
            session.check_lock()
            session.logbook.evaluation(step, results)
        session.logbook.restart_clock(step)
        return results

    def _log_what_runs(self, state: TrainState, first_step: int) -> None:
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        log(
            f"Inception: {count:,} parameters, {self.recipe.model.num_classes} classes; "
            f"{len(self.source):,} training images; "
            f"{self.mesh.size} {jax.devices()[0].device_kind} device(s), batch "
            f"{self.config.batch_size}, {self.num_steps:,} steps"
        )
        if first_step >= self.num_steps:
            log(f"{self.workdir} is finished: step {first_step} of {self.num_steps}")
        elif first_step:
            log(f"continuing from step {first_step}")
        else:
            log(overview.table(state.params, self.recipe.frozen))
        if self.config.deterministic and jax.default_backend() != "gpu":
            log(f"config.deterministic: {jax.default_backend()} computes equal bits anyway")


def train_and_evaluate(
    config: ConfigDict,
    workdir: epath.PathLike,
    train_source: Source | None = None,
    eval_source: Source | None = None,
) -> dict:
    """Trains in `workdir`, or continues the run that it holds, and evaluates at the end.

    Args:
      config: see inception/defaults.py.
      workdir: a folder on a disk or in a bucket; receives config.json, checkpoints/,
        metrics.jsonl, anomalies.jsonl (watch.py), TensorBoard's event files, results.json and, for
        each further evaluation of config.evaluations, results_NAME.json.
      train_source: images to train on; None for the config's.
      eval_source: images to evaluate on; None for the config's.

    Returns:
      The final evaluation, as in results.json; the further ones by name as "evaluations".

    Raises:
      ConfigError: for a config that makes no sense.
      WeightsError: if config.init_from holds none that can be used.
      CheckpointError: if the workdir holds another config's run, another process trains in it, it
        cannot be written, or the last checkpoint could not be saved.
      TrainingError: after config.max_nonfinite_steps in a row; their last good state is saved.
      Interrupted: after Ctrl-C or SIGTERM, when the step has been saved.
    """
    settings.validate(config)
    workdir = resolve_workdir(workdir)
    config, weights = finetune.prepare(config, workdir)
    train_source = train_source or open_train_source(config)
    eval_source = eval_source or open_eval_source(config)
    named = {
        name: open_eval_source(evaluation)
        for name, evaluation in settings.named_evaluations(config).items()
    }
    agreement.check(config, workdir, {**named, "training": train_source, "evaluation": eval_source})
    trainer = Trainer(config, workdir, train_source, eval_source, named, weights)
    with run_lock(workdir) as check_lock:
        start_or_resume(workdir, config, train_source)
        return trainer.run(check_lock)
