"""What an ablation measured: every row's errors with their intervals, and its difference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from ml_collections import FrozenConfigDict
from scipy import stats

from inception.ablation.rows import AblationRow, AblationRun
from inception.cost.counting import count_network
from inception.paper import ReportedResult, find_result, reported_change

CONFIDENCE = 0.95
WEIGHTS = ("ema", "raw")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and how far it is to be trusted.

    Attributes:
      by_seed: the values.
      mean: of them.
      deviation: standard deviation from seed to seed; 0 with a single one.
      interval: the two ends of Student's 95 % interval for the mean; () with a single seed.
    """

    by_seed: dict[int, float]
    mean: float
    deviation: float
    interval: tuple[float, ...]

    @classmethod
    def of(cls, by_seed: Mapping[int, float]) -> "Estimate":
        """The estimate from one value or more."""
        values = list(by_seed.values())
        mean = float(np.mean(values))
        if len(values) == 1:
            return cls(dict(by_seed), mean, 0.0, ())
        margin = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)
        interval = (float(mean - margin), float(mean + margin))
        return cls(dict(by_seed), mean, float(np.std(values, ddof=1)), interval)


def percent(*errors: float) -> tuple[float, ...]:
    """Errors, and the ends of their intervals, in percent as far as errors go: from 0 to 100."""
    return tuple(100 * min(max(0.0, error), 1.0) for error in errors)


@dataclass(frozen=True)
class RowResult:
    """A row's line in the tables.

    Attributes:
      name: of the row.
      parent: the row that it is a change of, or None.
      changes: fields by name, the parent's value and its own.
      measured: by weights, "ema" and "raw", and by name: "top1_error", "top5_error", "loss",
        "confidence" and "ece", fractions and nats; {} while no run is finished.
      difference: top-1 error of the EMA weights less the parent's with the same seed; None where
        there is no pair.
      cost: "parameters" and "multiply_adds" per image without the side head, and
        "parameters_with_side_head"; {} while no run is finished.
      experiment: that `paper` belongs to, "table 3"; None where the paper has no number.
      paper: what the paper reports.
      paper_change: its difference of top-1 error from the parent, percentage points.
    """

    name: str
    parent: str | None
    changes: dict[str, tuple]
    measured: dict[str, dict[str, Estimate]]
    difference: Estimate | None
    cost: dict[str, int]
    experiment: str | None
    paper: ReportedResult | None
    paper_change: float | None

    @property
    def error(self) -> Estimate:
        """The top-1 error of the weights that the paper evaluates, once a run is finished."""
        return self.measured["ema"]["top1_error"]


@dataclass(frozen=True)
class Comparison:
    """All that a report says.

    Attributes:
      rows: in the order asked for.
      finished: number of runs.
      failed: the reasons of those that failed, by "CONFIG, seed SEED".
      not_run: the other runs that are not finished.
      dataset: of the configs.
      split: that was evaluated; DATASET:SPLIT if it is another data set's.
      examples: in it.
      training_examples: in the training split.
      classes: number of them.
      setting: the fields, and their values, in which the rows are not run as their files say.
      machines: that ran them, and their versions.
      seconds: that the runs took.
    """

    rows: list[RowResult]
    finished: int
    failed: dict[str, str]
    not_run: list[str]
    dataset: str
    split: str
    examples: int
    training_examples: int
    classes: int
    setting: dict[str, object]
    machines: list[str]
    seconds: float

    @property
    def shown(self) -> list[RowResult]:
        """The rows of which a run is finished."""
        return [row for row in self.rows if row.measured]


def compare(rows: Sequence[AblationRow], runs: Sequence[AblationRun]) -> Comparison:
    """Reads what the runs left in their workdirs. Needs no data and trains nothing."""
    finished: dict[str, dict[int, dict]] = {row.name: {} for row in rows}
    unfinished, records = {}, [run.record for run in runs]
    one: dict = {}
    for run, record in zip(runs, records, strict=True):
        if results := run.results:
            finished[run.row][run.seed] = one = results
        else:
            unfinished[str(run)] = record.get("error", "")
    classes = len(one["ema"]["per_class"]) if one else 0
    config = rows[0].config
    elsewhere = f"{config.eval.dataset}:" if config.eval.dataset else ""
    return Comparison(
        rows=[_row_result(row, finished, classes) for row in rows],
        finished=len(runs) - len(unfinished),
        failed={name: error for name, error in unfinished.items() if error},
        not_run=[name for name, error in unfinished.items() if not error],
        dataset=config.dataset,
        split=elsewhere + config.eval.split,
        examples=one.get("examples", 0),
        training_examples=next(filter(None, (run.training_images for run in runs)), 0),
        classes=classes,
        setting={name: value for row in rows for name, value in row.setting.items()},
        machines=sorted({record["machine"] for record in records if "machine" in record}),
        seconds=sum(record.get("seconds", 0) for record in records),
    )


def _row_result(row: AblationRow, finished: Mapping[str, dict], classes: int) -> RowResult:
    results, parents = finished[row.name], finished.get(row.parent or "", {})
    better = {
        seed: parents[seed]["ema"]["top1"] - result["ema"]["top1"]
        for seed, result in results.items()
        if seed in parents
    }
    experiment, paper = find_result(row.name, finished) or (None, None)
    return RowResult(
        name=row.name,
        parent=row.parent,
        changes=row.changes,
        measured={weights: _measure(results, weights) for weights in WEIGHTS} if results else {},
        difference=Estimate.of(better) if better else None,
        cost=_count(FrozenConfigDict(row.config), classes) if results else {},
        experiment=experiment,
        paper=paper,
        paper_change=reported_change(row.name, row.parent) if row.parent else None,
    )


def _measure(results: Mapping[int, dict], weights: str) -> dict[str, Estimate]:
    def estimate(get: Any) -> Estimate:
        return Estimate.of({seed: get(result[weights]) for seed, result in results.items()})

    return {
        "top1_error": estimate(lambda it: 1 - it["top1"]),
        "top5_error": estimate(lambda it: 1 - it["top5"]),
        # null in the file: not a finite number
        "loss": estimate(lambda it: math.nan if it["loss"] is None else it["loss"]),
        "confidence": estimate(lambda it: it["confidence"]),
        "ece": estimate(lambda it: it["ece"]),
    }


@cache
def _count(config: FrozenConfigDict, classes: int) -> dict[str, int]:
    """Takes a second, and a report is redrawn often."""
    network = count_network(config, classes)
    return {
        "parameters": network.total.parameters,
        "parameters_with_side_head": network.total_with_side_head.parameters,
        "multiply_adds": network.total.multiply_adds,
    }
