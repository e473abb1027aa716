"""The results of an ablation in two tables: its runs, and its rows with their intervals.

Errors are fractions; unknown values are missing.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import FrozenConfigDict
from scipy import stats

from inception.ablation.rows import AblationRow, AblationRun
from inception.cost.counting import count_network
from inception.network.model import WEIGHT_KINDS
from inception.paper import find_result, reported_change

CONFIDENCE = 0.95
FACTS = ("run", "row", "seed", "error", "seconds", "machine", "dataset", "split", "training_images")
WRONG = [f"{weights}_wrong" for weights in WEIGHT_KINDS]
MEASURES = ("top1_error", "top5_error", "loss", "confidence", "ece")


def read_runs(runs: Sequence[AblationRun]) -> pd.DataFrame:
    """Reads the results from the runs' workdirs, without the data.

    Returns:
      A line for each run: the FACTS and, if it is finished, "examples" and "classes" of the
      evaluation, the MEASURES of each of WEIGHT_KINDS, such as "ema_top1_error", and the images
      that they classify wrongly, "ema_wrong" and "raw_wrong"; None in runs of older versions.
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
    table = pd.DataFrame(lines, columns=[*FACTS, "examples", "classes", *measures, *WRONG])
    return table.astype(dict.fromkeys(measures, float))  # None is a loss that is not finite


def compare(rows: Sequence[AblationRow], runs: pd.DataFrame) -> pd.DataFrame:
    """Compares the rows of an ablation, given the table of its runs.

    Returns:
      A line for each row: "row", "parent", "changes"; "error_..." and "difference_...", see
      `estimate`: the EMA weights' top-1 error, and that minus the parent's with the same seed;
      "images_...", the same difference image by image, see `compare_images`;
      "parameters", "parameters_with_aux_head" and "multiply_adds"; "experiment" of the paper,
      "paper_top1", "paper_top5" and "paper_billion_ops", see `paper.ReportedResult`; and
      "paper_change" in percentage points.
    """
    errors = runs.pivot(index="seed", columns="row", values="ema_top1_error")
    wrong = runs.pivot(index="seed", columns="row", values="ema_wrong")
    lines = []
    for row in rows:
        own = errors[row.name].dropna()
        pairs = (own - errors[row.parent]).dropna() if row.parent else own[:0]
        line: dict[str, Any] = {"row": row.name, "parent": row.parent, "changes": row.changes}
        line |= _prefixed("error", estimate(own)) | _prefixed("difference", estimate(pairs))
        answers, others = (wrong[name][pairs.index] for name in (row.name, row.parent or row.name))
        line |= _prefixed("images", compare_images(answers, others, runs.examples.max()))
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


def compare_images(first: pd.Series, second: pd.Series, examples: float) -> dict[str, float]:
    """Compares the errors of two networks image by image, as both have seen the same images.

    The difference d [seeds, images] is 1 where only the first is wrong and -1 where only the second
    is. Its mean varies with the seeds and with the images. The variance is estimated as the sum of
    those of the seeds' and of the images' means, with Satterthwaite's degrees of freedom. The noise
    of single answers is in both, so that the interval is rather too wide: in simulations of three
    seeds it covers 95 to 98 %.

    Args:
      first: Numbers of the images that the first classifies wrongly, by seed.
      second: The same of the second, for the same seeds.
      examples: Number of all images.

    Returns:
      The "mean" difference, "low" and "high" (the ends of its 95 % interval over seeds and images),
      and the means over the seeds of "newly_wrong" and "newly_right" (numbers of images that only
      the first, or only the second, classifies wrongly). All are NaN if there is no seed, or if the
      images are not known.
    """
    if first.empty or first.isna().any() or second.isna().any():
        return dict.fromkeys(("mean", "low", "high", "newly_wrong", "newly_right"), np.nan)
    places = np.array(sorted(set(itertools.chain(*first, *second))))  # of images anybody misses
    wrong = np.zeros((2, len(first), int(examples)), np.int8)
    for network, lists in zip(wrong, (first, second), strict=True):
        for answers, images in zip(network, lists, strict=True):
            answers[np.searchsorted(places, images)] = 1
    difference = wrong[0] - wrong[1]
    parts = [
        (means.var(ddof=1) / len(means), len(means) - 1)
        for means in (difference.mean(axis=1), difference.mean(axis=0))
        if len(means) > 1
    ]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / (sum(part**2 / own for part, own in parts) or np.nan)
    margin = np.nan_to_num(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * variance**0.5
    mean = difference.mean()
    return {
        **{"mean": mean, "low": mean - margin, "high": mean + margin},
        "newly_wrong": (difference > 0).sum(axis=1).mean(),
        "newly_right": (difference < 0).sum(axis=1).mean(),
    }


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
