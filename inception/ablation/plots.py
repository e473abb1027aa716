"""The pictures of an ablation's report: learning curves, final errors, cost against error.

A row has the same colour in all of them. Rows without a finished run are left out.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter
from matplotlib.transforms import ScaledTranslation

from inception.ablation.rows import AblationRun
from inception.ablation.statistics import Comparison, RowResult, percent

_INK, _GREY, _PARENT, _GRID = "0.15", "0.45", "0.68", "0.9"
_COLOURS = mpl.color_sequences["tab10"]
_COLUMNS = 3  # of panels of learning curves
_DOTTED = (0, (1, 1.2))
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8.5}


def draw_curves(comparison: Comparison, runs: Sequence[AblationRun]) -> Figure:
    """Error by epoch, a panel for each row: the mean of its seeds, their range, and the parent.

    The scale is logarithmic: 0 errors are drawn as half an image of the evaluation's.
    """
    rows, floor = comparison.shown, 0.5 / comparison.examples
    columns = min(len(rows), _COLUMNS)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(max(6.2, 3.1 * columns), 1.3 + 2.3 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    of = {row.name: [run for run in runs if run.row == row.name and run.results] for row in rows}
    for number, (axes, row) in enumerate(zip(panels, rows, strict=False)):
        colour = _colour(number)
        if row.parent in of:
            epochs, errors = _errors(of[row.parent], "eval/ema_top1", floor)
            axes.plot(epochs, errors.mean(axis=0), color=_PARENT, lw=1.4)
        epochs, errors = _errors(of[row.name], "train/top1", floor)
        axes.plot(epochs, errors.mean(axis=0), color=colour, lw=1, ls=_DOTTED)
        epochs, errors = _errors(of[row.name], "eval/ema_top1", floor)
        low, high = errors.min(axis=0), errors.max(axis=0)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.22, lw=0)
        axes.plot(epochs, errors.mean(axis=0), color=colour, lw=1.8, marker="o", ms=3)
        axes.set_title(row.name, loc="left", size=10, weight="bold", color=colour)
        axes.set(xlim=(0, None), yscale="log")
        axes.yaxis.set(
            major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=StrMethodFormatter("{x:g}")
        )
        axes.minorticks_off()
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _style(axes)
        lowest = number + columns >= len(rows)
        axes.tick_params(labelbottom=lowest)
        axes.set_xlabel("epoch" if number >= columns * (lines - 1) else "")
    for axes in panels[len(rows) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel("top-1 error, %")
    handles = [
        Line2D([], [], color=_INK, lw=1.8, marker="o", ms=3, label="evaluation, EMA weights"),
        Patch(color=_INK, alpha=0.22, lw=0, label="lowest to highest seed"),
        Line2D([], [], color=_INK, lw=1, ls=_DOTTED, label="training batches"),
    ]
    if any(row.parent in of for row in rows):
        handles += [Line2D([], [], color=_PARENT, lw=1.4, label="evaluation of the parent row")]
    ncols = 4 if columns == _COLUMNS else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, **_LEGEND)
    _title(figure, "Learning curves", f"{_where(comparison)}; 0 wrong is drawn as half an image")
    return figure


def draw_errors(comparison: Comparison) -> Figure:
    """Final error of each row, seed by seed, with its interval; beside it the paper's."""
    rows = comparison.shown
    beside = _one_experiment(rows)
    figure, measured, paper = _panels(comparison, 1.5 + 0.42 * len(rows), beside, sharey=True)
    for y, row in enumerate(rows):
        colour = _colour(y)
        if row.error.interval:
            low, high = percent(*row.error.interval)
            measured.barh(y, high - low, left=low, height=0.5, color=colour, alpha=0.18, lw=0)
        measured.plot([100 * row.error.mean] * 2, [y - 0.25, y + 0.25], color=colour, lw=2)
        # Equal seeds stand above each other.
        values = Counter(round(100 * value, 9) for value in row.error.by_seed.values())
        xs = list(values.elements())
        ys = [y + 0.16 * (i - (n - 1) / 2) for n in values.values() for i in range(n)]
        measured.plot(xs, ys, "o", color=colour, ms=5.5, mec="white", mew=0.7, clip_on=False)
        if paper and row.paper:
            error = row.paper.top1
            paper.plot(error, y, "D", color=colour, ms=5.5)
            paper.text(error, y - 0.2, f"{error:.1f}", size=8, ha="center", va="bottom")
    measured.set_yticks(range(len(rows)), [row.name for row in rows])
    measured.set_ylim(len(rows) - 0.45, -0.55)
    for axes in filter(None, (measured, paper)):
        axes.set_xlabel("top-1 error, %")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.use_sticky_edges = False
        axes.margins(x=0.1)
        axes.set_xlim(left=max(0, axes.get_xlim()[0]))
    legend = "dots: seeds   ·   line: their mean   ·   band: 95 % t-interval of the mean"
    _title(figure, "Final error", legend)
    return figure


def draw_costs(comparison: Comparison) -> Figure:
    """Multiply-adds against error, measured and as the paper reports them."""
    rows = comparison.shown
    beside = _one_experiment(rows) and any(row.paper and row.paper.billion_ops for row in rows)
    figure, measured, paper = _panels(comparison, 3.9, beside, sharey=False)
    costs = [row.cost["multiply_adds"] for row in rows]
    unit, name = (1e9, "billion") if max(costs) >= 1e9 else (1e6, "million")
    for number, (row, cost) in enumerate(zip(rows, costs, strict=True)):
        x, y, ends = cost / unit, 100 * row.error.mean, percent(*row.error.interval)
        # Rows that cost the same stand side by side.
        shift = 8 / 72 * (costs[:number].count(cost) - (costs.count(cost) - 1) / 2)
        shifted = measured.transData + ScaledTranslation(shift, 0, figure.dpi_scale_trans)
        style: dict[str, Any] = {"color": _colour(number), "transform": shifted}
        measured.plot([x] * len(ends), ends, lw=1.6, alpha=0.45, **style)
        measured.plot(x, y, "o", ms=7, label=row.name, **style)
        measured.update_datalim([(x, value) for value in (y, *ends)])
        if paper and row.paper and row.paper.billion_ops:
            paper.plot(row.paper.billion_ops, row.paper.top1, "D", color=_colour(number), ms=6)
    measured.set(xlabel=f"{name} multiply-adds per image", ylabel="top-1 error, %")
    measured.margins(0.25, 0.1)
    if paper:
        paper.set_xlabel("billion multiply-adds per image")
        paper.margins(0.35, 0.15)
    figure.legend(loc="outside right center", **_LEGEND)
    detail = "dot: mean of the seeds   ·   line: its 95 % t-interval"
    side_by_side = "   ·   equal costs side by side" if len(set(costs)) < len(costs) else ""
    _title(figure, "Cost against error", detail + side_by_side)
    return figure


def _one_experiment(rows: Sequence[RowResult]) -> bool:
    """Whether the paper's numbers may stand in one picture."""
    return len({row.experiment for row in rows if row.paper}) == 1


def _colour(number: int) -> Any:
    return _COLOURS[number % len(_COLOURS)]


def _where(comparison: Comparison) -> str:
    return f"{comparison.dataset}, {comparison.examples:,} images of {comparison.split}"


def _errors(runs: Sequence[AblationRun], name: str, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and at each of them the errors in percent, [seeds, epochs]."""
    curves = [run.curve(name) for run in runs]
    steps = sorted(set.intersection(*map(set, curves)))
    correct = np.array([[curve[step] for step in steps] for curve in curves])
    epochs = np.array(steps) / (runs[0].steps_per_epoch or 1)
    return epochs, 100 * np.maximum(floor, 1 - correct)


def _panels(
    comparison: Comparison, height: float, beside: bool, sharey: bool
) -> tuple[Figure, Axes, Axes | None]:
    """A panel for what was measured and, if wanted, a narrower one for the paper."""
    figure = Figure(figsize=(9 if beside else 7, height), layout="constrained")
    ratios = (2, 1) if beside else (1,)
    panels = figure.subplots(1, len(ratios), sharey=sharey, squeeze=False, width_ratios=ratios)[0]
    titles = (f"measured: {_where(comparison)}", "the paper: ImageNet")
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, loc="left", size=9, color=_GREY)
        _style(axes)
    return figure, panels[0], panels[1] if beside else None


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.7")
    axes.tick_params(color="0.7", labelcolor=_INK, labelsize=8.5)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)


def _title(figure: Figure, title: str, detail: str) -> None:
    figure.suptitle(title, x=0.012, ha="left", size=14, weight="bold", color=_INK)
    figure.text(0.99, 0.985, detail, ha="right", va="top", size=8.5, color=_GREY)
