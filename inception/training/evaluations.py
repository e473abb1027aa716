"""The evaluations of a run: of its held-out data while it trains, and of further data at its end.

A state is saved before it is evaluated. A run that stops in an evaluation makes it up when it is
continued.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from inception import config as settings
from inception.data.sources import Source
from inception.distributed import processes
from inception.distributed.preemption import Interrupted
from inception.errors import ConfigError
from inception.evaluation.evaluate import write_results
from inception.evaluation.evaluator import Evaluator
from inception.training.run import TrainingRun
from inception.training.session import Session
from inception.training.state import TrainState
from inception.workdir import retention
from inception.workdir.identity import check_classes
from inception.workdir.logbook import log, summary


class Evaluations:
    """Evaluates the states of a run.

    Args:
      run: The run.
      held_out: Data to evaluate on every config.eval.every_epochs and at the end.
      further: Data to evaluate on at the end only, by the names in config.evaluations.

    Raises:
      ConfigError: If the data has another number of classes than the run.
      CheckpointError: If it has the run's classes in another order.
    """

    def __init__(self, run: TrainingRun, held_out: Source, further: Mapping[str, Source]):
        self._run = run
        self._every = max(1, round(run.config.eval.every_epochs * run.steps_per_epoch))
        self._held_out = self._evaluator(run.config, held_out)
        configs = settings.named_evaluations(run.config)
        self._further = {
            name: self._evaluator(configs[name], source) for name, source in further.items()
        }

    def _evaluator(self, config: ConfigDict, source: Source) -> Evaluator:
        run = self._run
        if source.num_classes != run.source.num_classes:
            raise ConfigError(
                f"{run.config.dataset}: {run.config.split!r} has {run.source.num_classes} classes "
                f"and config.eval.split={config.eval.split!r} has {source.num_classes}"
            )
        check_classes(run.config.dataset, run.source.class_names, source)
        return Evaluator(config, source, [run.recipe.model], run.mesh)

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` is evaluated on the held-out data."""
        return step >= self._run.num_steps or step % self._every == 0

    def evaluate(self, step: int, state: TrainState, session: Session) -> dict:
        """Evaluates a state on the held-out data, and logs the results.

        Args:
          step: Step that the state is saved as.
          state: The state, as `run.step.pack` returns it.
          session: What the run writes to.

        Raises:
          Interrupted: If the run has to stop; asked after every batch.
        """
        results = self._results(self._held_out, step, state, session)
        session.check_lock()
        session.logger.evaluation(step, results)
        return results

    def make_up(self, step: int, state: TrainState, session: Session) -> dict:
        """Evaluates the state that a run continues with, if that was due and has not been done.

        Returns:
          The results; {} if nothing was due. A finished run needs them, so it evaluates again.

        Raises:
          Interrupted: See `evaluate`.
        """
        if not step or not self.is_due(step):
            return {}
        mine = "known" if retention.was_evaluated(self._run.workdir, step) else ""
        # Other processes may see an older file than process 0.
        if not processes.gather_and_reduce(mine, lambda texts: texts[0]):
            return self.evaluate(step, state, session)
        if step < self._run.num_steps:
            return {}
        results = self._results(self._held_out, step, state, session)
        log(summary(results))
        return results

    def finish(self, results: dict, state: TrainState, session: Session) -> dict:
        """Writes the final results, and evaluates the last state on the further data.

        Args:
          results: Results on the held-out data.
          state: The last state, as `run.step.pack` returns it.
          session: What the run writes to.

        Returns:
          `results`, with those of config.evaluations by name as "evaluations".

        Raises:
          Interrupted: See `evaluate`.
        """
        self._write("results", results, session)
        for name, evaluator in self._further.items():
            more = self._results(evaluator, self._run.num_steps, state, session)
            log(f"{name}: {summary(more)}")
            self._write(f"results_{name}", more, session)
            results.setdefault("evaluations", {})[name] = more
        return results

    def _write(self, name: str, results: dict, session: Session) -> None:
        session.check_lock()
        write_results(self._run.workdir, name, results, self._run.source.class_names)

    def _results(
        self, evaluator: Evaluator, step: int, state: TrainState, session: Session
    ) -> dict:
        def check_stop() -> None:
            if session.should_stop():
                raise Interrupted(
                    f"stopped in an evaluation of step {step}, which is saved; the same command "
                    "continues with this evaluation"
                )

        return evaluator([self._run.step.unpack(state)], step, check_stop)
