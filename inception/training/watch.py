"""Looks at the metrics of a run's steps when they are fetched: means, steps left out, spikes.

A step that is not finite has changed nothing (step.py), and is left out of the means. A spike is a
step far above the last 100 finite ones, once there are 20: its loss is more than
config.spike_factor times their median and higher by at least 1, or its gradient norm is more than
config.spike_factor times their largest and above config.clip_norm. (The largest, because late in a
good run most gradients are small, and a single hard image makes one ten times the median.) A spike
is applied like any other step. Both are logged with what is known of them, in anomalies.jsonl:

    {"step": 41, "event": "skipped", "loss": null, "grad_norm": null, "learning_rate": 0.045,
     "block_grad_norms": {"Mixed_5b": null, ...}, "examples": {"3": [17, 4, ...]}}

where `examples` are indices of the training data by epoch, in the batch's order, and null is what
is not finite.
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

_RECENT, _ENOUGH = 100, 20  # steps to compare with, and how many it takes
_MIN_RISE = 1.0  # of a loss, in nats
_NOT_AVERAGED = ("finite", "block_grad_norms")  # of no use as a mean


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on; the message says where it stopped and what is safe."""


class StepMonitor:
    """Gathers the metrics of steps, on the devices until `collect` fetches them.

    Args:
      config: of the run.
      blocks: the names of "block_grad_norms".
      logbook: of the run.
    """

    def __init__(self, config: ConfigDict, blocks: Sequence[str], logbook: MetricLogger):
        self._config, self._blocks, self._logbook = config, blocks, logbook
        self._waiting: list[tuple[int, dict, dict]] = []
        self._recent = {name: deque[float](maxlen=_RECENT) for name in ("loss", "grad_norm")}
        self._consecutive_skips: list[
            int
        ] = []  # the steps up to the last one seen that were left out
        self._error = ""

    @property
    def is_waiting(self) -> bool:
        """Whether there are steps that `look` would look at."""
        return bool(self._waiting)

    def add(self, step: int, metrics: dict[str, jax.Array], batch: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that has been dispatched, and its batch's examples.

        Waits for the step two before it: a host far ahead of its devices could not stop soon.
        """
        self._waiting.append((step, metrics, {name: batch[name] for name in ("epoch", "example")}))
        if len(self._waiting) > 2:
            jax.block_until_ready(self._waiting[-3][1])

    def collect(self) -> dict[str, float]:
        """Waits for the steps added since the last call, and logs those out of the ordinary.

        Returns:
          The means of their metrics, NaN if every step was left out; "learning_rate" is that of
          the last step, "skipped_steps" how many were left out.

        Raises:
          TrainingError: if the weights are not finite.
        """
        fetched = jax.device_get([metrics for _, metrics, _ in self._waiting])
        for (step, _, examples), metrics in zip(self._waiting, fetched, strict=True):
            self._inspect(step, metrics, examples)
        self._waiting = []
        return means(fetched)

    def error(self, step: int) -> TrainingError | None:
        """What ends a run of too many steps in a row that were not finite, saved as `step`."""
        if not self._error:
            return None
        return TrainingError(
            f"{self._error}; the last good state is saved as step {step}, from where the same "
            "command goes on. A lower learning_rate, a longer warmup_epochs or another clip_norm "
            "may help, in another workdir"
        )

    def _inspect(self, step: int, metrics: dict[str, Any], examples: dict[str, jax.Array]) -> None:
        if metrics["finite"]:
            self._consecutive_skips = []
            if not np.isfinite(metrics["weight_norm"]):
                raise TrainingError(
                    f"step {step}: the weights are not finite at learning rate "
                    f"{metrics['learning_rate']:.4g}; the newest checkpoint is from before. Lower "
                    f"config.learning_rate={self._config.learning_rate}"
                )
            if what := self._spikes(metrics):
                self._record(step, "spike", what, metrics, examples)
        else:
            self._consecutive_skips.append(step)
            bad = [
                name
                for name, norm in zip(self._blocks, metrics["block_grad_norms"], strict=True)
                if not np.isfinite(norm)
            ]
            what = f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']}"
            if bad:
                what += f", not finite in {_some(bad)}"
            self._record(step, "skipped", f"left out: {what}", metrics, examples)
            if len(self._consecutive_skips) == (most := self._config.max_nonfinite_steps):
                self._error = (
                    f"steps {self._consecutive_skips[0]} to {step} were not finite "
                    f"(config.max_nonfinite_steps={most}), the last with {what} at learning rate "
                    f"{metrics['learning_rate']:.4g}"
                )

    def _spikes(self, metrics: dict[str, Any]) -> str:
        """What is far above its recent values, if anything; remembers the step for later ones."""
        factor, found = self._config.spike_factor, []
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        losses, norms = self._recent["loss"], self._recent["grad_norm"]
        if factor and len(losses) >= _ENOUGH:
            median, largest = float(np.median(losses)), max(norms)
            if loss > factor * median and loss > median + _MIN_RISE:
                found.append(
                    f"loss {loss:.4g} is {_ratio(loss, median)} its recent median {median:.4g}"
                )
            if norm > factor * largest and norm > self._config.clip_norm:
                found.append(
                    f"grad_norm {norm:.4g} is {_ratio(norm, largest)} the largest of the last "
                    f"{len(norms)} steps, {largest:.4g}"
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
        self._logbook.anomaly(step, what, record)


def means(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The means of fetched metrics over the steps that were finite, see `StepMonitor.look`."""
    finite = [metrics for metrics in steps if metrics["finite"]]
    result = {
        name: float(np.mean([m[name] for m in finite], dtype=np.float64)) if finite else math.nan
        for name in steps[0]
        if name not in _NOT_AVERAGED
    }
    result["learning_rate"] = float(steps[-1]["learning_rate"])
    return {**result, "skipped_steps": float(len(steps) - len(finite))}


def by_epoch(examples: dict[str, np.ndarray]) -> dict[int, list[int]]:
    """A batch's examples by their epochs, in order."""
    epochs, numbers = examples["epoch"], examples["example"]
    return {int(epoch): numbers[epochs == epoch].tolist() for epoch in np.unique(epochs)}


def _some(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.1f}x" if reference else "above"
