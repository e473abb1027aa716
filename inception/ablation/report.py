"""The report of an ablation: report.md, report.json and the pictures.

Errors are fractions in the JSON file and percent in the Markdown file.
"""

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from inception.ablation import plots
from inception.ablation.results import (
    WEIGHT_KINDS,
    WRONG,
    compare,
    compare_images,
    estimate,
    read_runs,
)
from inception.ablation.rows import AblationRow, AblationRun
from inception.workdir.files import write_json, write_text

HEADING = """\
# Ablation on {dataset}: {rows}

{finished} of {all} runs are finished{failed}{waiting}.
"""
RESULTS = """
## Results

{result}

Top-1 error of the running averages of the weights (EMA): mean over the seeds [95 % t-interval].
Changes are relative to the parent, the row above that differs in the fewest fields. The paper's
errors are on ImageNet, and comparable within one experiment (last column) only.

![Final error of every row, seed by seed](errors.png)

![Learning curves](curves.png)

All rows are evaluated on the same {examples:,.0f} images, and one image is {image:.2g} points. With
other images of the same kind an error would differ by a standard error of up to {sampling:.2g}
points, however many seeds there are.
{differences}
## EMA and raw weights

{weights}

Mean ± standard deviation over the seeds. Raw weights are those of the last step; confidence is the
mean probability of the predicted class. The last column is paired image by image, with its 95 %
interval over seeds and images.

## Cost

{costs}

For one image at this experiment's size and width, without the auxiliary head, which only training
needs. `python -m inception.cost` compares the paper's numbers.
"""
DIFFERENCES = """
## Differences

{table}

Top-1 error minus that of the parent with the same seed, negative where the row is better: mean
[95 % t-interval over the seeds]. "Over seeds and images" is the interval for other seeds and other
images of the same kind, paired image by image, and "excludes 0" is about it where it is known. Then
follow the numbers of images that only the row and only its parent classifies wrongly, means over
the seeds. One interval in twenty excludes 0 by chance.
"""
MISSING = """
## Failed or missing

{reasons}

The same command tries them again.
"""
ORIGIN = """
## Origin

```
{command}
```

{facts}
"""


def write(
    workdir: epath.Path, rows: Sequence[AblationRow], runs: Sequence[AblationRun], command: str
) -> None:
    """Writes report.md, report.json and, if any run is finished, the pictures.

    Args:
      workdir: Folder of the ablation.
      rows: All rows.
      runs: All runs, finished or not.
      command: Command line that the report quotes.
    """
    setting = {name: value for row in rows for name, value in row.setting.items()}
    measured = read_runs(runs)
    compared = compare(rows, measured)
    tables = {
        "rows": compared.to_dict("records"),
        "runs": measured.drop(columns=WRONG).to_dict("records"),
    }
    write_json(workdir / "report.json", {"command": command, "setting": setting, **tables})
    write_text(workdir / "report.md", page(compared, measured, setting, command))
    if measured.examples.notna().any():
        plots.write(workdir, compared, measured, runs)


def page(rows: pd.DataFrame, runs: pd.DataFrame, setting: Mapping, command: str) -> str:
    """The report as Markdown, from the two tables of results.py; it links to the pictures."""
    finished, unfinished = runs[runs.examples.notna()], runs[runs.examples.isna()]
    failed = unfinished[unfinished.error.notna() & (unfinished.error != "")]
    waiting = unfinished.drop(failed.index)
    heading = HEADING.format(
        dataset=runs.dataset[0],
        rows=", ".join(rows.row),
        finished=len(finished),
        all=len(runs),
        failed=f", {len(failed)} failed (see below)" if len(failed) else "",
        waiting=f", {len(waiting)} have not been run" if len(waiting) else "",
    )
    results = _results(rows, finished) if len(finished) else ""
    reasons = [
        f"{'; '.join(alike.run)}:\n\n```\n{reason}\n```"
        for reason, alike in failed.groupby("error", sort=False)
    ]
    if len(waiting):
        reasons.append(f"Not run yet: {'; '.join(waiting.run)}.")
    missing = MISSING.format(reasons="\n\n".join(reasons)) if reasons else ""
    facts = "\n\n".join(_facts(runs, finished, setting))
    return heading + results + missing + ORIGIN.format(command=command, facts=facts)


def _facts(runs: pd.DataFrame, finished: pd.DataFrame, setting: Mapping) -> Iterator[str]:
    for run in finished[:1].itertuples():
        yield (
            f"* Data: {run.dataset}, {run.classes:.0f} classes, {run.training_images:,.0f} images "
            f"to train on, {run.examples:,.0f} of {run.split} to evaluate."
        )
    if setting:
        fields = "".join(f"  {name} = {value!r}\n" for name, value in setting.items())
        yield f"* Fields that differ from the rows' config files:\n\n  ```\n{fields}  ```"
    if machines := sorted(set(runs.machine.dropna())):
        time = datetime.timedelta(seconds=round(runs.seconds.sum()))
        yield f"* Time: {time}, compilation included, on {'; '.join(machines)}."


def _results(rows: pd.DataFrame, finished: pd.DataFrame) -> str:
    examples, worst = finished.examples.max(), rows.error_mean.max()
    return RESULTS.format(
        result=_result_table(rows),
        examples=examples,
        image=100 / examples,
        sampling=100 * math.sqrt(worst * (1 - worst) / examples),
        differences=_differences(rows[rows.difference_seeds > 0]),
        weights=_weights_table(finished),
        costs=_cost_table(rows[rows.error_seeds > 0]),
    )


def _result_table(rows: pd.DataFrame) -> str:
    columns = {
        "row": rows.row,
        "changed": rows.changes.map(_changes),
        "top-1 error, %": _interval(rows, "error"),
        "seeds": rows.error_seeds,
        "paper: top-1": _text(rows.paper_top1, ".1f"),
        "top-5": _text(rows.paper_top5, ".1f"),
        "of": rows.experiment,
    }
    return _table(columns, left=2)


def _differences(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    columns = {
        "row": rows.row,
        "parent": rows.parent,
        "changed": rows.changes.map(_changes),
        "points": _interval(rows, "difference", sign="+"),
        "over seeds and images": _interval(rows, "images", sign="+"),
        "excludes 0": _excludes_0(rows, "images")
        .fillna(_excludes_0(rows, "difference"))
        .fillna("no"),
        "newly wrong / right": _text(rows.images_newly_wrong, ".1f")
        + " / "
        + _text(rows.images_newly_right, ".1f"),
        "seed by seed": [
            ", ".join(f"{100 * pair:+.2f}" for pair in pairs.values())
            for pairs in rows.difference_by_seed
        ],
        "paper": _text(rows.paper_change, "+.1f"),
    }
    return DIFFERENCES.format(table=_table(columns, left=3))


def _excludes_0(rows: pd.DataFrame, name: str) -> pd.Series:
    """Whether an interval excludes 0, "yes" or "no"; missing where there is no interval."""
    one_sign = np.sign(rows[f"{name}_low"] * rows[f"{name}_high"])
    return one_sign.map({1: "yes", 0: "no", -1: "no"})


def _weights_table(finished: pd.DataFrame) -> str:
    lines = [
        {
            "row": row,
            "weights": {"ema": "EMA"}.get(weights, weights),
            "top-1 error, %": _spread(runs[f"{weights}_top1_error"]),
            "top-5 error, %": _spread(runs[f"{weights}_top5_error"]),
            "loss, nats": _spread(runs[f"{weights}_loss"], scale=1, digits=4),
            "mean confidence, %": _spread(runs[f"{weights}_confidence"]),
            "calibration error, %": _spread(runs[f"{weights}_ece"]),
            "minus EMA's error, points": _minus_ema(runs) if weights == "raw" else None,
        }
        for row, runs in finished.groupby("row", sort=False)
        for weights in WEIGHT_KINDS
    ]
    return _table(lines, left=2)


def _minus_ema(runs: pd.DataFrame) -> str:
    """The raw weights' error minus the EMA weights', over a row's seeds and images."""
    found = compare_images(runs.raw_wrong, runs.ema_wrong, runs.examples.max())
    return _interval(pd.DataFrame([found]).add_prefix("images_"), "images", sign="+")[0]


def _cost_table(rows: pd.DataFrame) -> str:
    columns = {
        "row": rows.row,
        "top-1 error, %": _text(100 * rows.error_mean, ".2f"),
        "parameters": _text(rows.parameters, ",.0f"),
        "with auxiliary head": _text(rows.parameters_with_aux_head, ",.0f"),
        "multiply-adds": _text(rows.multiply_adds, ",.0f"),
        "relative to the first": _text(rows.multiply_adds / rows.multiply_adds.iloc[0], ".3f"),
        "paper: billions": _text(rows.paper_billion_ops, ".1f"),
    }
    return _table(columns, left=1)


def _table(columns: Any, left: int) -> str:
    """A Markdown table whose first `left` columns are left-aligned."""
    table = pd.DataFrame(columns).astype(object).fillna("-")
    align = ["left"] * left + ["right"] * (table.shape[1] - left)
    return table.to_markdown(index=False, colalign=align, disable_numparse=True)


def _text(values: pd.Series, form: str) -> pd.Series:
    """Numbers in the format `form`; "-" for missing ones."""
    values = values.astype(float)
    return values.map(f"{{:{form}}}".format).where(values.notna(), "-")


def _interval(rows: pd.DataFrame, name: str, sign: str = "") -> pd.Series:
    """Percent, "1.11 [0.42, 1.80]"; without a sign it is an error and clipped to 0 to 100."""
    parts = (100 * rows[f"{name}_{part}"] for part in ("mean", "low", "high"))
    mean, low, high = (_text(part if sign else part.clip(0, 100), f"{sign}.2f") for part in parts)
    return mean + (" [" + low + ", " + high + "]").replace(" [-, -]", "")


def _spread(values: pd.Series, scale: float = 100, digits: int = 2) -> str:
    """Mean and standard deviation over the seeds, "1.11 ± 0.28"."""
    found = estimate(scale * values)
    mean, deviation = (f"{found[part]:.{digits}f}" for part in ("mean", "deviation"))
    return f"{mean} ± {deviation}" if len(values) > 1 else mean


def _changes(changes: Mapping[str, tuple]) -> str:
    return "; ".join(f"{name}: {old} → {new}" for name, (old, new) in changes.items()) or "-"
