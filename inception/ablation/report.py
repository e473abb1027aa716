"""The report of an ablation: report.md for people, report.json for programs, and the pictures.

Errors are fractions in the JSON and percent on the page.
"""

import datetime
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from inception.ablation import plots
from inception.ablation.rows import Cell, Row
from inception.ablation.statistics import Comparison, Estimate, RowResult, compare, percent
from inception.logbook import write_json
from inception.paper import COSTS


def write(workdir: str | Path, rows: Sequence[Row], cells: Sequence[Cell], command: str) -> None:
    """Writes WORKDIR/report.md, report.json and, once a cell is finished, the pictures.

    Args:
      workdir: of the ablation.
      rows: of it.
      cells: of it, whatever their state.
      command: that the report says it was made by.
    """
    comparison, folder = compare(rows, cells), Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"command": command, **asdict(comparison)}
    write_json(folder / "report.json", facts)
    (folder / "report.md").write_text(page(comparison, command))
    if comparison.finished:
        _save(plots.draw_curves(comparison, cells), folder / "curves.png")
        _save(plots.draw_errors(comparison), folder / "errors.png")
        _save(plots.draw_costs(comparison), folder / "costs.png")


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=110, facecolor="white", pil_kwargs={"optimize": True})


def page(comparison: Comparison, command: str) -> str:
    """The report as Markdown; the pictures are links to files beside it."""
    shown = [row for row in comparison.rows if row.measured]
    paired = [row for row in comparison.rows if row.difference]
    parts = [_head(comparison)]
    if shown:
        parts += [_result(comparison), _reading(comparison)]
    if paired:
        parts += [_differences(paired)]
    if shown:
        parts += [_weights(shown), _cost(shown)]
    if comparison.failed or comparison.not_run:
        parts += [_missing(comparison)]
    return "\n\n".join([*parts, _origin(comparison, command)]) + "\n"


def _head(comparison: Comparison) -> str:
    names = ", ".join(row.name for row in comparison.rows)
    failed, waiting = len(comparison.failed), len(comparison.not_run)
    return _section(
        f"# Ablation on {comparison.dataset}: {names}",
        f"{comparison.finished} of {comparison.finished + failed + waiting} runs are finished"
        + (f", {failed} failed (see below)" if failed else "")
        + (f", {waiting} are still to be run" if waiting else "")
        + ".",
    )


def _result(comparison: Comparison) -> str:
    header = ("row", "changed", "top-1 error, %", "seeds", "paper: top-1", "top-5", "of")
    rows = [
        (
            row.name,
            _changes(row),
            _interval(row.error),
            len(row.error.by_seed) if row.error else 0,
            _number(row.paper.top1 if row.paper else None),
            _number(row.paper.top5 if row.paper else None),
            row.experiment or "",
        )
        for row in comparison.rows
    ]
    return _section(
        "## Result",
        _table(header, rows, left=2),
        "Error of the running averages of the weights (EMA), which the paper evaluates: the mean "
        "over the seeds and, in brackets, the 95 % interval of Student's t for it. Changes are "
        "against the parent: the row above that differs in the fewest fields. The paper's numbers "
        "are ImageNet's errors, comparable within one experiment only: the last column.",
        "![Final error of every row, seed by seed](errors.png)",
        "![Learning curves](curves.png)",
    )


def _reading(comparison: Comparison) -> str:
    """What the intervals mean and what they leave out, in numbers of this comparison."""
    estimates = [row.error for row in comparison.rows if row.error]
    seeds = max(len(estimate.by_seed) for estimate in estimates)
    worst = max(estimate.mean for estimate in estimates)
    sampling = 100 * math.sqrt(worst * (1 - worst) / comparison.examples)
    image = 100 / comparison.examples
    spread = (
        "One seed says nothing about the spread from seed to seed, so there are no intervals."
        if seeds == 1
        else "An interval says where the mean of many seeds may lie, as judged from "
        f"{seeds} of them, if their errors are normally distributed. Few seeds tell little about "
        "their own spread, which makes intervals wide; and seeds that agree by chance make them "
        f"too narrow: one image is {image:.2g} points."
    )
    return _section(
        "### How far to trust it",
        f"{spread} All rows are evaluated on the same {comparison.examples:,} images; others of "
        f"the same kind would move each row's error by a standard error of up to {sampling:.2g} "
        "points, however many seeds there are.",
    )


def _differences(rows: Sequence[RowResult]) -> str:
    header = ("row", "parent", "changed", "points", "clear of 0", "seed by seed", "paper")
    lines = []
    for row in rows:
        assert row.difference
        lines.append(
            (
                row.name,
                row.parent,
                _changes(row),
                _interval(row.difference, sign="+"),
                _clear_of_zero(row.difference),
                ", ".join(f"{100 * value:+.2f}" for value in row.difference.by_seed.values()),
                _number(row.paper_change, sign="+"),
            )
        )
    return _section(
        "## Differences",
        _table(header, lines, left=3),
        "Top-1 error of a row less that of its parent with the same seed, below 0 where the row is "
        "better: the mean of the pairs and its 95 % t-interval. An interval has one chance in "
        "twenty to be clear of 0 by accident, so among many rows expect some that are. The paper's "
        "difference is of two of its numbers, one run each as far as it says.",
    )


def _clear_of_zero(difference: Estimate) -> str:
    if not difference.interval:
        return "-"
    low, high = difference.interval
    return "yes" if low > 0 or high < 0 else "no"


def _weights(rows: Sequence[RowResult]) -> str:
    header = (
        *("row", "weights", "top-1 error, %", "top-5 error, %"),
        *("loss, nats", "mean confidence, %", "calibration error, %"),
    )
    lines = [
        (
            row.name,
            {"ema": "EMA"}.get(weights, weights),
            _spread(measured["top1_error"]),
            _spread(measured["top5_error"]),
            _spread(measured["loss"], scale=1, digits=4),
            _spread(measured["confidence"]),
            _spread(measured["ece"]),
        )
        for row in rows
        for weights, measured in row.measured.items()
    ]
    return _section(
        "## EMA and raw weights",
        _table(header, lines, left=2),
        "Mean over the seeds ± standard deviation from seed to seed. Raw are the weights of the "
        "last step. Label smoothing shows in the confidence: the mean probability of the class "
        "that is predicted.",
    )


def _cost(rows: Sequence[RowResult]) -> str:
    header = (
        *("row", "parameters", "with side head", "multiply-adds", "ratio to the first"),
        "paper: billions",
    )
    counted = [(row, row.counts) for row in rows if row.counts]
    first = counted[0][1].multiply_adds
    lines = [
        (
            row.name,
            f"{counts.parameters:,}",
            f"{counts.parameters_with_side_head:,}",
            f"{counts.multiply_adds:,}",
            f"{counts.multiply_adds / first:.3f}",
            _number(row.paper.billion_ops if row.paper else None),
        )
        for row, counts in counted
    ]
    remarks = {COSTS[row.name].remark: None for row in rows if row.name in COSTS}
    return _section(
        "## Cost",
        _table(header, lines, left=1),
        "Of one image at the size and width of this run, without the side head, which only "
        "training needs; counted by tracing the network.",
        *([f"At full size: {' '.join(remarks)}".replace("\n", " ")] if remarks else []),
        "![Cost against error](costs.png)",
    )


def _missing(comparison: Comparison) -> str:
    """The failed cells, those of one reason together, and what has not been run."""
    reasons: dict[str, list[str]] = {}
    for name, reason in comparison.failed.items():
        reasons.setdefault(reason, []).append(name)
    failed = [f"{'; '.join(names)}:\n\n```\n{reason}\n```" for reason, names in reasons.items()]
    waiting = [f"Still to be run: {'; '.join(comparison.not_run)}."] if comparison.not_run else []
    again = "Once the reason is gone, the same command tries them again."
    return _section("## Failed or missing", *failed, *waiting, again)


def _origin(comparison: Comparison, command: str) -> str:
    lines = []
    if comparison.finished:
        lines += [
            f"* Data: {comparison.dataset}, {comparison.classes} classes, "
            f"{comparison.training_examples:,} images to train on, {comparison.examples:,} of "
            f"{comparison.split} to evaluate."
        ]
    if comparison.setting:
        fields = "\n".join(f"  {name} = {value!r}" for name, value in comparison.setting.items())
        lines += [
            f"* All rows are run as their config files say, but for\n\n  ```\n{fields}\n  ```"
        ]
    if comparison.machines:
        duration = datetime.timedelta(seconds=round(comparison.seconds))
        machines = "; ".join(comparison.machines)
        lines += [f"* Time: {duration}, compilation included, on {machines}."]
    return _section("## How this was made", f"```\n{command}\n```", *lines)


def _section(*parts: str) -> str:
    return "\n\n".join(parts)


def _table(header: Sequence, rows: Sequence[Sequence], left: int) -> str:
    """A Markdown table, the first `left` columns aligned to the left."""
    rule = [":--"] * left + ["--:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (header, rule, *rows))


def _changes(row: RowResult) -> str:
    return "; ".join(f"{name}: {old} → {new}" for name, (old, new) in row.changes.items()) or "-"


def _number(value: float | None, sign: str = "") -> str:
    """A number of the paper's."""
    return "-" if value is None else f"{value:{sign}.1f}"


def _interval(estimate: Estimate | None, sign: str = "") -> str:
    """Percent, "1.11 [0.42, 1.80]". Without a sign it is an error, which lies between 0 and 100."""
    if estimate is None:
        return "-"
    values = (estimate.mean, *estimate.interval)
    points = [100 * value for value in values] if sign else percent(*values)
    mean, *ends = (f"{point:{sign}.2f}" for point in points)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def _spread(estimate: Estimate, scale: float = 100, digits: int = 2) -> str:
    """Mean and standard deviation over the seeds, "1.11 ± 0.28"."""
    mean = f"{scale * estimate.mean:.{digits}f}"
    return f"{mean} ± {scale * estimate.deviation:.{digits}f}" if estimate.interval else mean
