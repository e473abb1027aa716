"""What an ablation measured: every row's errors with their intervals, and its difference."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from ml_collections import FrozenConfigDict
from scipy.special import stdtrit

from inception.ablation.rows import Cell, Row
from inception.cost.counting import cost
from inception.paper import Reported, reported, reported_change

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
        count, mean = len(by_seed), statistics.fmean(by_seed.values())
        if count == 1:
            return cls(dict(by_seed), mean, 0.0, ())
        deviation = float(np.std(list(by_seed.values()), ddof=1))
        margin = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(count)
        return cls(dict(by_seed), mean, deviation, (mean - margin, mean + margin))


def percent(*errors: float) -> tuple[float, ...]:
    """Errors, and the ends of their intervals, in percent as far as errors go: from 0 to 100."""
    return tuple(100 * min(max(0.0, error), 1.0) for error in errors)


@dataclass(frozen=True)
class Counts:
    """What a row's network costs, see counting.py."""

    parameters: int  # without the side head
    parameters_with_side_head: int
    multiply_adds: int  # of one image, without the side head


@dataclass(frozen=True)
class RowResult:
    """A row's line in the tables.

    Attributes:
      name: of the row.
      parent: the row that it is a change of, or None.
      changes: fields by name, the parent's value and its own.
      measured: by weights, "ema" and "raw", and by name: "top1_error", "top5_error", "loss",
        "confidence" and "ece", fractions and nats; {} while no cell is finished.
      difference: top-1 error of the EMA weights less the parent's with the same seed; None where
        there is no pair.
      counts: None while no cell is finished.
      experiment: that `paper` belongs to, "table 3"; None where the paper has no number.
      paper: what the paper reports.
      paper_change: its difference of top-1 error from the parent, percentage points.
    """

    name: str
    parent: str | None
    changes: dict[str, tuple]
    measured: dict[str, dict[str, Estimate]]
    difference: Estimate | None
    counts: Counts | None
    experiment: str | None
    paper: Reported | None
    paper_change: float | None

    @property
    def error(self) -> Estimate | None:
        """The top-1 error of the weights that the paper evaluates."""
        return self.measured["ema"]["top1_error"] if self.measured else None


@dataclass(frozen=True)
class Comparison:
    """All that a report says.

    Attributes:
      rows: in the order asked for.
      finished: number of cells.
      failed: the reasons of those that failed, by "CONFIG, seed SEED".
      not_run: the other cells that are not finished.
      dataset: of the configs.
      split: that was evaluated.
      examples: in it.
      training_examples: in the training split.
      classes: number of them.
      setting: the fields, and their values, in which the rows are not run as their files say.
      machines: that ran the cells, and their versions.
      seconds: that the cells took.
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


def compare(rows: Sequence[Row], cells: Sequence[Cell]) -> Comparison:
    """Reads what the cells left in their directories. Needs no data and trains nothing."""
    results = {(cell.row, cell.seed): cell.results for cell in cells}
    finished = {key: value for key, value in results.items() if value}
    unfinished = {f"{cell.row}, seed {cell.seed}": cell for cell in cells if not cell.results}
    failed = {name: cell.record.get("error", "") for name, cell in unfinished.items()}
    records = [cell.record for cell in cells]
    one: dict = next(iter(finished.values()), {})
    classes = len(one["ema"]["per_class"]) if one else 0
    return Comparison(
        rows=[_row(row, rows, finished, classes) for row in rows],
        finished=len(finished),
        failed={name: error for name, error in failed.items() if error},
        not_run=[name for name, error in failed.items() if not error],
        dataset=rows[0].config.dataset,
        split=rows[0].config.eval.split,
        examples=one.get("examples", 0),
        training_examples=next(filter(None, (cell.training_images for cell in cells)), 0),
        classes=classes,
        setting={name: value for row in rows for name, value in row.setting.items()},
        machines=sorted({record["machine"] for record in records if "machine" in record}),
        seconds=sum(record.get("seconds", 0) for record in records),
    )


def _row(row: Row, rows: Sequence[Row], finished: Mapping, classes: int) -> RowResult:
    mine, parents = _by_seed(row.name, finished), _by_seed(row.parent, finished)
    found = reported(row.name, [other.name for other in rows])
    return RowResult(
        name=row.name,
        parent=row.parent,
        changes=row.changes,
        measured={weights: _measure(mine, weights) for weights in WEIGHTS} if mine else {},
        difference=_difference(mine, parents),
        counts=_count(FrozenConfigDict(row.config), classes) if mine else None,
        experiment=found[0] if found else None,
        paper=found[1] if found else None,
        paper_change=reported_change(row.name, row.parent) if row.parent else None,
    )


def _by_seed(name: str | None, finished: Mapping) -> dict[int, dict]:
    return {seed: results for (row, seed), results in finished.items() if row == name}


def _measure(results: Mapping[int, dict], weights: str) -> dict[str, Estimate]:
    values = {seed: result[weights] for seed, result in results.items()}
    of = {
        "top1_error": lambda value: 1 - value["top1"],
        "top5_error": lambda value: 1 - value["top5"],
        # null in the file: not a finite number
        "loss": lambda value: math.nan if value["loss"] is None else value["loss"],
        "confidence": lambda value: value["confidence"],
        "ece": lambda value: value["ece"],
    }
    return {
        name: Estimate.of({seed: get(value) for seed, value in values.items()})
        for name, get in of.items()
    }


def _difference(mine: Mapping[int, dict], parents: Mapping[int, dict]) -> Estimate | None:
    pairs = {
        seed: parents[seed]["ema"]["top1"] - mine[seed]["ema"]["top1"]
        for seed in mine
        if seed in parents
    }
    return Estimate.of(pairs) if pairs else None


@cache
def _count(config: FrozenConfigDict, classes: int) -> Counts:
    """Takes a second, and a report is redrawn often."""
    counted = cost(config, classes)
    return Counts(
        parameters=counted.parameters,
        parameters_with_side_head=counted.with_side_head.parameters,
        multiply_adds=counted.multiply_adds,
    )
