"""The results of an ablation in two tables: its runs, and its rows with their intervals.

Errors are fractions; unknown values are missing.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd
from ml_collections import FrozenConfigDict
from scipy import stats

from inception.ablation.rows import AblationRow, AblationRun
from inception.cost.counting import count_network
from inception.network.model import WEIGHT_KINDS
from inception.paper import find_result, reported_change

CONFIDENCE = 0.95
FACTS = ("run", "row", "seed", "error", "seconds", "machine", "dataset", "split", "training_images")
MEASURES = ("top1_error", "top5_error", "loss", "confidence", "ece")


def read_runs(runs: Sequence[AblationRun]) -> pd.DataFrame:
    """Reads the results from the runs' workdirs, without the data.

    Returns:
      A line for each run: the FACTS and, if it is finished, "examples" and "classes" of the
      evaluation and the MEASURES of each of WEIGHT_KINDS, such as "ema_top1_error".
    """
    lines = []
    for run in runs:
        config = run.config
        elsewhere = f"{config.eval.dataset}:" if config.eval.dataset else ""
        line = {"run": str(run), "row": run.row, "seed": config.seed, **run.record}
        line |= {"dataset": config.dataset, "split": elsewhere + config.eval.split}
        line["training_images"] = run.training_images
        if results := run.results:
            classes = len(results["ema"]["per_class"])
            line |= {"examples": results["examples"], "classes": classes}
            for weights in WEIGHT_KINDS:
                measured = results[weights]
                errors = {f"{name}_error": 1 - measured[name] for name in ("top1", "top5")}
                line |= _prefixed(weights, measured | errors)
        lines.append(line)
    measures = [f"{weights}_{measure}" for weights in WEIGHT_KINDS for measure in MEASURES]
    table = pd.DataFrame(lines, columns=[*FACTS, "examples", "classes", *measures])
    return table.astype(dict.fromkeys(measures, float))  # None is a loss that is not finite


def compare(rows: Sequence[AblationRow], runs: pd.DataFrame) -> pd.DataFrame:
    """Compares the rows of an ablation, given the table of its runs.

    Returns:
      A line for each row: "row", "parent", "changes"; "error_..." and "difference_...", see
      `estimate`: the EMA weights' top-1 error, and that minus the parent's with the same seed;
      "parameters", "parameters_with_aux_head" and "multiply_adds"; "experiment" of the paper,
      "paper_top1", "paper_top5" and "paper_billion_ops", see `paper.ReportedResult`; and
      "paper_change" in percentage points.
    """
    errors = runs.pivot(index="seed", columns="row", values="ema_top1_error")
    lines = []
    for row in rows:
        own = errors[row.name].dropna()
        pairs = (own - errors[row.parent]).dropna() if row.parent else own[:0]
        line: dict[str, Any] = {"row": row.name, "parent": row.parent, "changes": row.changes}
        line |= _prefixed("error", estimate(own)) | _prefixed("difference", estimate(pairs))
        if len(own):
            line |= _count(FrozenConfigDict(row.config), int(runs.classes.max()))
        line["experiment"], paper = find_result(row.name, list(errors))
        line |= _prefixed("paper", paper._asdict())
        line["paper_change"] = reported_change(row.name, row.parent)
        lines.append(line)
    return pd.DataFrame(lines)


def estimate(values: pd.Series) -> dict[str, Any]:
    """Estimates a mean over seeds.

    Returns:
      "by_seed" (the values), "seeds" (their number), "mean", "deviation" (the standard deviation
      over seeds), "low" and "high" (the ends of Student's 95 % interval of the mean). The last
      three are NaN for a single seed, and so is the mean for none.
    """
    mean, deviation = values.mean(skipna=False), values.std(skipna=False)
    margin = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.sem(skipna=False)
    estimated = {"mean": mean, "deviation": deviation, "low": mean - margin, "high": mean + margin}
    return {"by_seed": values.to_dict(), "seeds": len(values), **estimated}


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


@cache
def _count(config: FrozenConfigDict, classes: int) -> dict[str, int]:
    """Costs of a network; cached, as counting takes a second and a report is redrawn often."""
    network = count_network(config, classes)
    return {
        "parameters": network.total.parameters,
        "parameters_with_aux_head": network.total_with_aux_head.parameters,
        "multiply_adds": network.total.multiply_adds,
    }
