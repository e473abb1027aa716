"""Monitors the metrics of a run's steps: their means, skipped steps and spikes.

A step that is not finite has changed nothing (step.py), and is not counted in the means. A spike is
a step far above the last 100 finite ones, once there are 20: its loss is more than
config.spike_factor times their median and higher by at least 1, or its gradient norm is more than
twice config.spike_factor times their 95th percentile and above config.clip_norm. (Gradients have a
heavier tail: late in a good run a single hard image makes one 34 times the median, but not 8 times
that percentile.) A spike is applied like any other step. Both are recorded in anomalies.jsonl:

    {"step": 41, "event": "skipped", "loss": null, "grad_norm": null, "learning_rate": 0.045,
     "block_grad_norms": {"Mixed_5b": null, ...}, "examples": {"3": [17, 4, ...]}}

where `examples` are indices of the training data by epoch, in the batch's order, and null is a
number that is not finite.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from inception.errors import UserError
from inception.workdir.logbook import MetricLogger

_MAX_RECENT, _MIN_RECENT = 100, 20  # finite steps that a step is compared with
_MIN_RISE = 1.0  # of a loss, in nats
_NOT_AVERAGED = ("finite", "block_grad_norms")  # whose mean says nothing


class TrainingError(UserError, RuntimeError):
    """A run that cannot continue; the message says where it stopped and what is saved."""


class StepMonitor:
    """Holds the metrics of steps on the devices until `collect` fetches and inspects them.

    Args:
      config: Config of the run.
      blocks: Names of "block_grad_norms", see `Recipe.blocks`.
      logger: Logger of the run, for skipped steps and spikes.
    """

    def __init__(self, config: ConfigDict, blocks: Sequence[str], logger: MetricLogger):
        self._config, self._blocks, self._logger = config, blocks, logger
        self._waiting: list[tuple[int, dict, dict]] = []
        self._recent = {name: deque[float](maxlen=_MAX_RECENT) for name in ("loss", "grad_norm")}
        self._consecutive_skips: list[int] = []  # steps, up to the last one inspected
        self._error = ""

    @property
    def is_waiting(self) -> bool:
        """Whether there are steps that `collect` would fetch."""
        return bool(self._waiting)

    def add(self, step: int, metrics: dict[str, jax.Array], batch: dict[str, jax.Array]) -> None:
        """Adds the metrics of a step that has been dispatched, and the examples of its batch.

        Waits for the step two before it: a host far ahead of its devices could not stop quickly.
        """
        self._waiting.append((step, metrics, {name: batch[name] for name in ("epoch", "example")}))
        if len(self._waiting) > 2:
            jax.block_until_ready(self._waiting[-3][1])

    def collect(self) -> dict[str, float]:
        """Waits for the steps added since the last call, and logs skipped ones and spikes.

        Returns:
          The means of their metrics over the steps that were not skipped, NaN if all were;
          "learning_rate" of the last step; "skipped_steps", their number.

        Raises:
          TrainingError: If the weights are not finite.
        """
        fetched = jax.device_get([metrics for _, metrics, _ in self._waiting])
        for (step, _, examples), metrics in zip(self._waiting, fetched, strict=True):
            self._inspect(step, metrics, examples)
        self._waiting = []
        return means(fetched)

    def error(self, step: int) -> TrainingError | None:
        """The error of too many skipped steps in a row, for a run saved as `step`; None if none."""
        if not self._error:
            return None
        return TrainingError(
            f"{self._error}; the last good state is saved as step {step}, and the same command "
            "continues from it. Try a lower learning_rate, a longer warmup_epochs or another "
            "clip_norm in another workdir"
        )

    def _inspect(self, step: int, metrics: dict[str, Any], examples: dict[str, jax.Array]) -> None:
        if not metrics["finite"]:
            self._inspect_skipped(step, metrics, examples)
            return
        self._consecutive_skips = []
        if not np.isfinite(metrics["weight_norm"]):
            raise TrainingError(
                f"step {step}: the weights are not finite at learning rate "
                f"{metrics['learning_rate']:.4g}; the newest checkpoint is from before. Lower "
                f"config.learning_rate={self._config.learning_rate}"
            )
        if what := self._spikes(metrics):
            self._record(step, "spike", what, metrics, examples)

    def _inspect_skipped(
        self, step: int, metrics: dict[str, Any], examples: dict[str, jax.Array]
    ) -> None:
        norms = zip(self._blocks, metrics["block_grad_norms"], strict=True)
        bad = [name for name, norm in norms if not np.isfinite(norm)]
        what = f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']}"
        what += f", not finite in {_some(bad)}" if bad else ""
        self._record(step, "skipped", f"skipped: {what}", metrics, examples)
        self._consecutive_skips.append(step)
        if len(self._consecutive_skips) == (limit := self._config.max_nonfinite_steps):
            self._error = (
                f"steps {self._consecutive_skips[0]} to {step} were not finite "
                f"(config.max_nonfinite_steps={limit}), the last with {what} at learning rate "
                f"{metrics['learning_rate']:.4g}"
            )

    def _spikes(self, metrics: dict[str, Any]) -> str:
        """What is far above its recent values, "" if nothing; remembers the step for later ones."""
        factor, found = self._config.spike_factor, []
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        losses, norms = self._recent["loss"], self._recent["grad_norm"]
        if factor and len(losses) >= _MIN_RECENT:
            median, high = float(np.median(losses)), float(np.percentile(norms, 95))
            if loss > factor * median and loss > median + _MIN_RISE:
                found.append(
                    f"loss {loss:.4g} is {_ratio(loss, median)} its recent median {median:.4g}"
                )
            if norm > 2 * factor * high and norm > self._config.clip_norm:
                found.append(
                    f"grad_norm {norm:.4g} is {_ratio(norm, high)} the 95th percentile {high:.4g} "
                    f"of the last {len(norms)} steps"
                )
        losses.append(loss)
        norms.append(norm)
        return "; ".join(found)

    def _record(
        self, step: int, event: str, what: str, metrics: dict[str, Any], examples: dict
    ) -> None:
        names = ("loss", "grad_norm", "learning_rate")
        record: dict[str, Any] = {"event": event, **{name: float(metrics[name]) for name in names}}
        norms = map(float, metrics["block_grad_norms"])
        record["block_grad_norms"] = dict(zip(self._blocks, norms, strict=True))
        record["examples"] = by_epoch(multihost_utils.process_allgather(examples, tiled=True))
        self._logger.anomaly(step, what, record)


def means(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means of fetched metrics over the steps that were not skipped, see `StepMonitor.collect`."""
    finite = [metrics for metrics in steps if metrics["finite"]]
    result = {
        name: float(np.mean([m[name] for m in finite], dtype=np.float64)) if finite else math.nan
        for name in steps[0]
        if name not in _NOT_AVERAGED
    }
    result["learning_rate"] = float(steps[-1]["learning_rate"])
    return {**result, "skipped_steps": float(len(steps) - len(finite))}


def by_epoch(examples: dict[str, np.ndarray]) -> dict[int, list[int]]:
    """The examples of a batch by epoch, in order."""
    epochs, numbers = examples["epoch"], examples["example"]
    return {int(epoch): numbers[epochs == epoch].tolist() for epoch in np.unique(epochs)}


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.1f}x" if reference else "above"
