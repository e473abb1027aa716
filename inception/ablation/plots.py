"""The pictures of an ablation's report: learning curves and final errors.

A row has the same color in both. Rows without a finished run are left out.
"""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from etils import epath
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from inception.ablation.rows import AblationRun

_COLUMNS = 3  # panels of learning curves in a line
_INK, _GRAY, _DOTTED = "0.15", "0.45", (0, (1, 1.2))
_PARENT: dict[str, Any] = {"color": "0.68", "lw": 1.4}
_COLORS = mpl.color_sequences["tab10"]
_TICKS = {"color": "0.7", "labelcolor": _INK, "labelsize": 8.5}
_STYLE: Any = {
    **{f"{axis}.{name}": value for axis in ("xtick", "ytick") for name, value in _TICKS.items()},
    "axes.axisbelow": True,
    "axes.edgecolor": "0.7",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "grid.color": "0.9",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
}


@mpl.rc_context(_STYLE)  # also while saving: ticks are drawn then
def write(
    workdir: epath.Path, rows: pd.DataFrame, runs: pd.DataFrame, sources: Sequence[AblationRun]
) -> None:
    """Writes curves.png and errors.png.

    Args:
      workdir: Folder that they are written to.
      rows: Table of rows, see `results.compare`.
      runs: Table of runs, see `results.read_runs`; at least one is finished.
      sources: The runs themselves, for their curves.
    """
    first = runs.dropna(subset="examples").iloc[0]
    where = f"{first.dataset}, {first.examples:,.0f} images of {first.split}"
    rows = rows[rows.error_seeds > 0].reset_index(drop=True)
    rows["color"] = [_COLORS[number % len(_COLORS)] for number in rows.index]
    for end in ("mean", "low", "high"):  # percent
        rows[end] = (100 * rows[f"error_{end}"]).clip(0, 100)
    for name, figure in (
        ("curves.png", _draw_curves(rows, sources, 1 / first.examples, where)),
        ("errors.png", _draw_errors(rows, where)),
    ):
        image = io.BytesIO()
        figure.savefig(image, dpi=110, facecolor="white", pil_kwargs={"optimize": True})
        (workdir / name).write_bytes(image.getvalue())


def _draw_curves(
    rows: pd.DataFrame, sources: Sequence[AblationRun], image: float, where: str
) -> Figure:
    """Error by epoch, a panel for each row: mean and range of its seeds, and the parent's mean.

    The scale is logarithmic: an error of 0 is drawn as half an image, `image` / 2.
    """
    finished = [run for run in sources if run.results]

    def errors(row: str, name: str) -> pd.DataFrame:
        """Percent, [seeds, epochs]."""
        curves = pd.DataFrame([run.curve(name) for run in finished if run.row == row])
        return 100 * (1 - curves.dropna(axis=1)).clip(lower=image / 2)

    columns = min(len(rows), _COLUMNS)
    lines = -(-len(rows) // columns)
    size = max(6.2, 3.1 * columns), 1.3 + 2.3 * lines
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, row in zip(panels.flat, rows.itertuples(), strict=False):
        if row.parent in set(rows.row):
            axes.plot(errors(row.parent, "eval/ema_top1").mean(), **_PARENT)
        axes.plot(errors(row.row, "train/top1").mean(), color=row.color, lw=1, ls=_DOTTED)
        curves = errors(row.row, "eval/ema_top1")
        ends = curves.min(), curves.max()
        axes.fill_between(curves.columns, *ends, color=row.color, alpha=0.22, lw=0)
        axes.plot(curves.mean(), color=row.color, lw=1.8, marker="o", ms=3)
        axes.set_title(row.row, size=10, weight="bold", color=row.color)
        axes.tick_params(labelbottom=row.Index + columns >= len(rows))
    axes = panels[0, 0]  # all panels share its scales
    axes.set(xlim=(0, None), yscale="log")
    axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
    axes.minorticks_off()
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in panels.flat[len(rows) :]:
        axes.set_axis_off()
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    for axes in panels[:, 0]:
        axes.set_ylabel("top-1 error, %")
    handles = [
        Line2D([], [], color=_INK, lw=1.8, marker="o", ms=3, label="evaluation, EMA weights"),
        Patch(color=_INK, alpha=0.22, lw=0, label="lowest to highest seed"),
        Line2D([], [], color=_INK, lw=1, ls=_DOTTED, label="training batches"),
    ]
    if rows.parent.isin(rows.row).any():
        handles += [Line2D([], [], **_PARENT, label="evaluation of the parent row")]
    in_line = 4 if columns == _COLUMNS else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=in_line)
    _title(figure, "Learning curves", f"{where}; an error of 0 is drawn as half an image")
    return figure


def _draw_errors(rows: pd.DataFrame, where: str) -> Figure:
    """Final error of each row, seed by seed, with its interval, next to the paper's."""
    with_paper = len({*rows.experiment} - {""}) == 1  # errors of two experiments do not compare
    ratios = (2, 1) if with_paper else (1,)
    figure = Figure((9 if with_paper else 7, 1.5 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(ratios), squeeze=False, sharey=True, width_ratios=ratios)[0]
    for axes, title in zip(panels, (f"measured: {where}", "the paper: ImageNet"), strict=False):
        axes.set_title(title, size=9, color=_GRAY)
    measured, *paper = panels
    for row in rows.itertuples():
        y = row.Index
        measured.barh(y, row.high - row.low, 0.5, row.low, color=row.color, alpha=0.18, lw=0)
        measured.plot([row.mean, row.mean], [y - 0.25, y + 0.25], color=row.color, lw=2)
        seeds = 100 * pd.Series(row.error_by_seed)
        style: dict[str, Any] = {"ms": 5.5, "mec": "white", "mew": 0.7, "clip_on": False}
        measured.plot(seeds, y + 0.16 * _spread(seeds), "o", color=row.color, **style)
        for axes in paper if pd.notna(row.paper_top1) else ():
            error = row.paper_top1
            axes.plot(error, y, "D", color=row.color, ms=5.5)
            axes.text(error, y - 0.2, f"{error:.1f}", size=8, ha="center", va="bottom")
    measured.set_yticks(rows.index, rows.row)
    measured.set_ylim(len(rows) - 0.45, -0.55)
    for axes in panels:
        axes.set_xlabel("top-1 error, %")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.use_sticky_edges = False
        axes.margins(x=0.1)
        axes.set_xlim(left=max(0, axes.get_xlim()[0]))
    legend = "dots: seeds   ·   line: their mean   ·   band: 95 % t-interval of the mean"
    _title(figure, "Final error", legend)
    return figure


def _spread(values: pd.Series) -> pd.Series:
    """Offsets that separate equal values: 0 for one, -0.5 and 0.5 for two."""
    equal = values.groupby(values.round(9))
    return equal.cumcount() - (equal.transform("size") - 1) / 2


def _title(figure: Figure, title: str, detail: str) -> None:
    figure.suptitle(title, x=0.012, ha="left", size=14, weight="bold", color=_INK)
    figure.text(0.99, 0.985, detail, ha="right", va="top", size=8.5, color=_GRAY)
