"""What a run writes while it trains, and what may stop it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inception.training.profiling import Profiler
from inception.training.state import TrainState
from inception.training.watch import StepMonitor
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.logbook import MetricLogger


@dataclass
class Session:
    """A run from one start of the program to its end.

    Attributes:
      checkpoints: Checkpoints of the run.
      logger: Log of its metrics.
      monitor: Metrics of the steps since they were last logged.
      profiler: Trace of some steps.
      batch_size: Images per step.
      should_stop: Whether the run has to stop (preemption.py); every process must ask equally
        often.
      check_lock: Raises CheckpointError if another run has taken the workdir over (lock.py); called
        before anything is written.
    """

    checkpoints: CheckpointWriter
    logger: MetricLogger
    monitor: StepMonitor
    profiler: Profiler
    batch_size: int
    should_stop: Callable[[], bool]
    check_lock: Callable[[], None]
    _due: int = field(default=0, init=False)  # the step up to which metrics are to be logged

    def log(self, step: int, wait: bool) -> None:
        """Logs the metrics up to `step`, which has been dispatched.

        Args:
          step: Number of the step.
          wait: Whether to wait for the step. If not, `log_due` logs it when the next step has been
            dispatched, so that the devices are busy while metrics are fetched.

        Raises:
          TrainingError: If the weights are not finite.
        """
        self.check_lock()
        self._due = step
        if wait:
            self.log_due()

    def log_due(self, following: tuple[int, Any] | None = None) -> None:
        """Logs the metrics that `log` has left for later.

        Args:
          following: Number and loss of the step after them, if it has been dispatched; speed is
            measured up to there if it is complete.

        Raises:
          TrainingError: If the weights are not finite.
        """
        if not self._due:
            return
        metrics, completed = self.monitor.collect(), self._due
        if following and following[1].is_ready():
            completed, _ = following
        self.logger.train(self._due, self.batch_size, metrics, completed)
        self._due = 0

    def save(self, step: int, state: TrainState) -> None:
        """Saves a state in the background, see `CheckpointWriter.save`."""
        self.check_lock()
        self.checkpoints.save(step, state)
