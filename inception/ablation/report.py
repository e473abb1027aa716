"""The report of an ablation: report.md for people, report.json for programs, and the pictures.

Errors are fractions in the JSON and percent on the page.
"""

import datetime
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from etils import epath
from tabulate import tabulate

from inception.ablation import plots
from inception.ablation.rows import AblationRow, AblationRun
from inception.ablation.statistics import Comparison, Estimate, RowResult, compare, percent
from inception.logbook import write_json
from inception.paper import COSTS


def write(
    workdir: epath.Path, rows: Sequence[AblationRow], runs: Sequence[AblationRun], command: str
) -> None:
    """Writes WORKDIR/report.md, report.json and, once a run is finished, the pictures.

    Args:
      workdir: of the ablation; it may be in a bucket.
      rows: of it.
      runs: of it, whatever their state.
      command: that the report says it was made by.
    """
    comparison = compare(rows, runs)
    write_json(workdir / "report.json", {"command": command, **asdict(comparison)})
    (workdir / "report.md").write_text(page(comparison, command))
    if not comparison.finished:
        return
    for name, figure in (
        ("curves.png", plots.draw_curves(comparison, runs)),
        ("errors.png", plots.draw_errors(comparison)),
        ("costs.png", plots.draw_costs(comparison)),
    ):
        image = io.BytesIO()
        figure.savefig(image, dpi=110, facecolor="white", pil_kwargs={"optimize": True})
        (workdir / name).write_bytes(image.getvalue())


def page(comparison: Comparison, command: str) -> str:
    """The report as Markdown; the pictures are links to files beside it."""
    parts = [*_heading(comparison)]
    if comparison.finished:
        parts += [*_result(comparison), *_trust(comparison)]
        parts += [*_differences(comparison), *_weights(comparison), *_cost(comparison)]
    return "\n\n".join([*parts, *_missing(comparison), *_origin(comparison, command)]) + "\n"


def _heading(comparison: Comparison) -> Iterator[str]:
    failed, waiting = len(comparison.failed), len(comparison.not_run)
    yield f"# Ablation on {comparison.dataset}: {', '.join(row.name for row in comparison.rows)}"
    yield (
        f"{comparison.finished} of {comparison.finished + failed + waiting} runs are finished"
        + (f", {failed} failed (see below)" if failed else "")
        + (f", {waiting} are still to be run" if waiting else "")
        + "."
    )


def _result(comparison: Comparison) -> Iterator[str]:
    yield "## Result"
    yield _table(
        [
            {
                "row": row.name,
                "changed": _changes(row),
                "top-1 error, %": _interval(row.error) if row.measured else "-",
                "seeds": len(row.error.by_seed) if row.measured else 0,
                "paper: top-1": _reported(getattr(row.paper, "top1", None)),
                "top-5": _reported(getattr(row.paper, "top5", None)),
                "of": row.experiment,
            }
            for row in comparison.rows
        ],
        left=2,
    )
    yield (
        "Error of the running averages of the weights (EMA), which the paper evaluates: the mean "
        "over the seeds and, in brackets, the 95 % interval of Student's t for it. Changes are "
        "against the parent: the row above that differs in the fewest fields. The paper's numbers "
        "are ImageNet's errors, comparable within one experiment only: the last column."
    )
    yield "![Final error of every row, seed by seed](errors.png)"
    yield "![Learning curves](curves.png)"


def _trust(comparison: Comparison) -> Iterator[str]:
    """What the intervals mean and what they leave out, in numbers of this comparison."""
    seeds = max(len(row.error.by_seed) for row in comparison.shown)
    worst = max(row.error.mean for row in comparison.shown)
    sampling = 100 * math.sqrt(worst * (1 - worst) / comparison.examples)
    spread = (
        "One seed says nothing about the spread from seed to seed, so there are no intervals."
        if seeds == 1
        else "An interval says where the mean of many seeds may lie, as judged from "
        f"{seeds} of them, if their errors are normally distributed. Few seeds tell little about "
        "their own spread, which makes intervals wide; and seeds that agree by chance make them "
        f"too narrow: one image is {100 / comparison.examples:.2g} points."
    )
    yield "### How far to trust it"
    yield (
        f"{spread} All rows are evaluated on the same {comparison.examples:,} images; others of "
        f"the same kind would move each row's error by a standard error of up to {sampling:.2g} "
        "points, however many seeds there are."
    )


def _differences(comparison: Comparison) -> Iterator[str]:
    pairs = [(row, row.difference) for row in comparison.rows if row.difference]
    if not pairs:
        return
    yield "## Differences"
    yield _table(
        [
            {
                "row": row.name,
                "parent": row.parent,
                "changed": _changes(row),
                "points": _interval(difference, sign="+"),
                "clear of 0": _clear_of_zero(difference),
                "seed by seed": ", ".join(f"{100 * x:+.2f}" for x in difference.by_seed.values()),
                "paper": _reported(row.paper_change, sign="+"),
            }
            for row, difference in pairs
        ],
        left=3,
    )
    yield (
        "Top-1 error of a row less that of its parent with the same seed, below 0 where the row is "
        "better: the mean of the pairs and its 95 % t-interval. An interval has one chance in "
        "twenty to be clear of 0 by accident, so among many rows expect some that are. The paper's "
        "difference is of two of its numbers, one run each as far as it says."
    )


def _weights(comparison: Comparison) -> Iterator[str]:
    yield "## EMA and raw weights"
    yield _table(
        [
            {
                "row": row.name,
                "weights": {"ema": "EMA"}.get(weights, weights),
                "top-1 error, %": _spread(measured["top1_error"]),
                "top-5 error, %": _spread(measured["top5_error"]),
                "loss, nats": _spread(measured["loss"], scale=1, digits=4),
                "mean confidence, %": _spread(measured["confidence"]),
                "calibration error, %": _spread(measured["ece"]),
            }
            for row in comparison.shown
            for weights, measured in row.measured.items()
        ],
        left=2,
    )
    yield (
        "Mean over the seeds ± standard deviation from seed to seed. Raw are the weights of the "
        "last step. Label smoothing shows in the confidence: the mean probability of the class "
        "that is predicted."
    )


def _cost(comparison: Comparison) -> Iterator[str]:
    first = comparison.shown[0].cost["multiply_adds"]
    yield "## Cost"
    yield _table(
        [
            {
                "row": row.name,
                "parameters": f"{row.cost['parameters']:,}",
                "with side head": f"{row.cost['parameters_with_side_head']:,}",
                "multiply-adds": f"{row.cost['multiply_adds']:,}",
                "ratio to the first": f"{row.cost['multiply_adds'] / first:.3f}",
                "paper: billions": _reported(getattr(row.paper, "billion_ops", None)),
            }
            for row in comparison.shown
        ],
        left=1,
    )
    yield (
        "Of one image at the size and width of this run, without the side head, which only "
        "training needs; counted by tracing the network."
    )
    remarks = dict.fromkeys(COSTS[row.name].remark for row in comparison.shown if row.name in COSTS)
    if remarks:
        yield f"At full size: {' '.join(remarks)}".replace("\n", " ")
    yield "![Cost against error](costs.png)"


def _missing(comparison: Comparison) -> Iterator[str]:
    """The failed runs, those of one reason together, and what has not been run."""
    if not comparison.failed and not comparison.not_run:
        return
    yield "## Failed or missing"
    for reason in dict.fromkeys(comparison.failed.values()):
        names = [name for name, its_reason in comparison.failed.items() if its_reason == reason]
        yield f"{'; '.join(names)}:\n\n```\n{reason}\n```"
    if comparison.not_run:
        yield f"Still to be run: {'; '.join(comparison.not_run)}."
    yield "Once the reason is gone, the same command tries them again."


def _origin(comparison: Comparison, command: str) -> Iterator[str]:
    yield "## How this was made"
    yield f"```\n{command}\n```"
    if comparison.finished:
        yield (
            f"* Data: {comparison.dataset}, {comparison.classes} classes, "
            f"{comparison.training_examples:,} images to train on, {comparison.examples:,} of "
            f"{comparison.split} to evaluate."
        )
    if comparison.setting:
        fields = "\n".join(f"  {name} = {value!r}" for name, value in comparison.setting.items())
        yield f"* All rows are run as their config files say, but for\n\n  ```\n{fields}\n  ```"
    if comparison.machines:
        duration = datetime.timedelta(seconds=round(comparison.seconds))
        machines = "; ".join(comparison.machines)
        yield f"* Time: {duration}, compilation included, on {machines}."


def _table(rows: list[dict], left: int) -> str:
    """A Markdown table, the first `left` columns aligned to the left."""
    align = ["left"] * left + ["right"] * (len(rows[0]) - left)
    return tabulate(rows, "keys", "pipe", colalign=align, disable_numparse=True)


def _changes(row: RowResult) -> str:
    return "; ".join(f"{name}: {old} → {new}" for name, (old, new) in row.changes.items()) or "-"


def _reported(value: float | None, sign: str = "") -> str:
    """A number of the paper's."""
    return "-" if value is None else f"{value:{sign}.1f}"


def _interval(estimate: Estimate, sign: str = "") -> str:
    """Percent, "1.11 [0.42, 1.80]". Without a sign it is an error, which lies between 0 and 100."""
    values = (estimate.mean, *estimate.interval)
    points = [100 * value for value in values] if sign else percent(*values)
    mean, *ends = (f"{point:{sign}.2f}" for point in points)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def _clear_of_zero(difference: Estimate) -> str:
    if not difference.interval:
        return "-"
    low, high = difference.interval
    return "yes" if low > 0 or high < 0 else "no"


def _spread(estimate: Estimate, scale: float = 100, digits: int = 2) -> str:
    """Mean and standard deviation over the seeds, "1.11 ± 0.28"."""
    mean = f"{scale * estimate.mean:.{digits}f}"
    return f"{mean} ± {scale * estimate.deviation:.{digits}f}" if estimate.interval else mean
