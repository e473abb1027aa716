"""Training: the loop around the step."""

from collections.abc import Callable, Iterator

import jax
from etils import epath
from ml_collections import ConfigDict

from inception import config as settings
from inception.data.datasets import open_eval_source, open_train_source
from inception.data.sources import Source
from inception.distributed.preemption import Interrupted, preemption
from inception.errors import ConfigError
from inception.training import agreement, finetune, overview
from inception.training.evaluations import Evaluations
from inception.training.profiling import Profiler
from inception.training.run import TrainingRun
from inception.training.session import Session
from inception.training.state import TrainState
from inception.training.watch import StepMonitor
from inception.weights import Pretrained
from inception.workdir import retention
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.identity import resolve_workdir, start_or_resume
from inception.workdir.lock import run_lock
from inception.workdir.logbook import MetricLogger, log


class Trainer(TrainingRun):
    """A run that trains and evaluates; most callers want `train_and_evaluate`.

    Args:
      config: See `TrainingRun`.
      workdir: Workdir of the run.
      train_source: Training data.
      eval_source: Held-out data.
      named_sources: Further data to evaluate on at the end, by the names in config.evaluations.
      weights: Weights to start from; None for random ones.

    Attributes:
      evaluations: The run's evaluations.

    Raises:
      ConfigError, CheckpointError, DataError: See `TrainingRun` and `Evaluations`.
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
        if config.eval.ensemble:
            raise ConfigError(
                f"config.eval.ensemble={config.eval.ensemble!r} is for evaluation, --mode=eval; a "
                "run trains one network"
            )
        super().__init__(config, workdir, train_source, weights)
        self.evaluations = Evaluations(self, eval_source, named_sources or {})

    def run(self, check_lock: Callable[[], None] = lambda: None) -> dict:
        """Trains from the newest checkpoint, or from the start, to the end; then evaluates.

        Args:
          check_lock: See `lock.run_lock`.
        """
        config = self.config
        policy = retention.from_config(config, self.steps_per_epoch)
        with CheckpointWriter(self.workdir, policy) as checkpoints:
            state = self.restore(checkpoints) if checkpoints.steps() else self.first_state()
            first_step = int(state.step)
            self._log_start(state, first_step)
            blocks = self.recipe.blocks(state.params)
            state = self.step.pack(state)  # the unpacked state has no other name; memory is freed
            with (
                MetricLogger(
                    self.workdir, first_step, self.num_steps, self.steps_per_epoch
                ) as logger,
                Profiler(config.profile_steps, self.workdir) as profiler,
                preemption() as should_stop,
            ):
                session = Session(
                    checkpoints=checkpoints,
                    logger=logger,
                    monitor=StepMonitor(config, blocks, logger),
                    profiler=profiler,
                    batch_size=config.batch_size,
                    should_stop=should_stop,
                    check_lock=check_lock,
                )
                state, results = self._train(state, first_step, session)
                checkpoints.wait()  # there are no results of a state that could not be saved
                return self.evaluations.finish(results, state, session)

    def _train(
        self, state: TrainState, first_step: int, session: Session
    ) -> tuple[TrainState, dict]:
        """Computes the steps after `first_step`; returns the last state and its evaluation."""
        monitor = session.monitor
        results = self.evaluations.make_up(first_step, state, session)
        session.logger.restart_clock(first_step)
        batches = self.batches(first_step)
        for step in range(first_step + 1, self.num_steps + 1):
            batch = self._next_batch(batches, state, step, session)
            session.profiler.before(step)
            state, metrics = self.compute(step, state, batch)
            session.profiler.after(step, metrics)
            session.log_due((step, metrics["loss"]))
            monitor.add(step, metrics, batch)

            is_first, stop = step == first_step + 1, session.should_stop()
            evaluate = self.evaluations.is_due(step)
            save = evaluate or stop or self._is_saved(step, session)
            if save or step % self.config.log_every_steps == 0:
                session.log(step, wait=is_first or save)
            # A run that fails or is stopped saves its state first; so does an evaluation, which
            # takes long and may fail.
            error = monitor.error(step)
            if save or error:
                session.save(step, self.step.unpack(state))
            if error:
                raise error
            if stop:
                raise Interrupted(f"stopped at step {step}; the same command continues from there")
            if evaluate:
                results = self.evaluations.evaluate(step, state, session)
            if is_first:
                jax.block_until_ready(metrics)
            if is_first or save:  # compiling, saving and evaluating do not count as training time
                session.logger.restart_clock(step)
        return state, results

    def _is_saved(self, step: int, session: Session) -> bool:
        """Whether a step is saved even if it is not evaluated."""
        must_save = session.checkpoints.policy.must_save(step)
        return must_save or step % self.config.checkpoint_every_steps == 0

    def _next_batch(
        self, batches: Iterator, state: TrainState, step: int, session: Session
    ) -> dict[str, jax.Array]:
        """The batch of `step`. If it cannot be read, the state before it is saved.

        With several processes nothing is saved, since the others do not know of the error and wait
        in the step.
        """
        try:
            return next(batches)
        except Exception:
            if step > 1 and jax.process_count() == 1:
                if session.monitor.is_waiting:
                    session.log(step - 1, wait=True)
                session.save(step - 1, self.step.unpack(state))
            raise

    def _log_start(self, state: TrainState, first_step: int) -> None:
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
            log(overview.table(state.params, self.recipe))
        if self.config.deterministic and jax.default_backend() != "gpu":
            backend = jax.default_backend()
            log(f"config.deterministic has no effect: {backend} always computes the same bits")


def train_and_evaluate(
    config: ConfigDict,
    workdir: epath.PathLike,
    train_source: Source | None = None,
    eval_source: Source | None = None,
) -> dict:
    """Trains in `workdir`, or continues the run in it, and evaluates at the end.

    Args:
      config: Config of the run, see inception/defaults.py.
      workdir: A folder on a disk or in a bucket; receives config.json, data.json, checkpoints/,
        metrics.jsonl, anomalies.jsonl (watch.py), TensorBoard's event files, results.json and, for
        each further evaluation of config.evaluations, results_NAME.json.
      train_source: Images to train on; None for the config's.
      eval_source: Images to evaluate on; None for the config's.

    Returns:
      The final evaluation, as in results.json; the further ones by name as "evaluations".

    Raises:
      ConfigError: If the config is not valid, or does not fit the devices or the data.
      DataError: If the data cannot be read or learned from.
      WeightsError: If config.init_from cannot be loaded.
      CheckpointError: If the workdir belongs to a run of another config, another process trains in
        it, it cannot be written, or the last checkpoint could not be saved.
      TrainingError: After config.max_nonfinite_steps in a row; the last good state is saved.
      Interrupted: After Ctrl-C or SIGTERM, when the step has been saved.
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
    sources = {**named, "training": train_source, "evaluation": eval_source}
    agreement.check(config, workdir, sources, weights.variables if weights else None)
    trainer = Trainer(config, workdir, train_source, eval_source, named, weights)
    with run_lock(workdir) as check_lock:
        start_or_resume(workdir, config, train_source)
        return trainer.run(check_lock)
