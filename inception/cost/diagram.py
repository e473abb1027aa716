"""The architecture as a picture, drawn from what was counted: `python -m inception.cost --plot`.

Left, the network from the input at the bottom to the softmax on top, as the paper draws its
figures: every stage with its grid and multiply-adds, and the side head. Right, each module once,
branch by branch, to hold beside figures 5 to 10: those that keep their grid, and the reductions
between them.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from inception.cost.counting import Cost, Layer, Stage, format_shape

# Lengths are inches.
_MARGIN, _TITLE = 0.3, 1.2
_ROW, _BOX = 0.47, 0.33  # a line of the outline, and the box in it
_HEAD, _HEAD_WIDTH = 0.3, 1.8  # left edge and width: of the side head,
_TRUNK, _TRUNK_WIDTH = 2.55, 2.65  # the outline,
_BARS, _BARS_WIDTH = 6.3, 1.3  # its multiply-adds,
_CARDS, _CARD_WIDTH = 8.8, 3.6  # and the modules
_GAP = 0.3  # between modules
_HEADING, _BAR, _LEVEL = 0.36, 0.26, 0.47  # a module's name, its base, a layer and its arrow

_INK, _GREY, _LINE = "#22303c", "#667380", "#8795a3"
_BANDS = ("#f3f6f9", "#e6ecf1")  # behind the stages of one grid, in turn
_COLOURS = {
    "conv": "#aed0f2",
    "max pool": "#f5b5a8",
    "average pool": "#f8daa4",
    "linear": "#cfbce9",
    "figure 5": "#a5dba0",
    "figure 6": "#7fcbbb",
    "figure 7": "#62b3c4",
    "figure 9": "#efa5bf",
    "figure 10": "#efa5bf",
}

# Levels from the bottom up; on each the layers that stand side by side, by label and kind.
Branch = list[list[tuple[str, str]]]


def draw(counted: Cost, title: str) -> Figure:
    """Draws a network.

    Args:
      counted: what `counting.cost` found out about it.
      title: what to call it, the config's name for example.

    Returns:
      A figure of its own, not pyplot's; `save` writes it.
    """
    modules = _modules(counted.stages)
    cards = [_card_height(module) for module in modules if not _reduces(module)]
    height = max(_ROW * (len(counted.stages) + 2), sum(cards) + _GAP * (len(cards) - 1))
    width = _CARDS + 2 * _CARD_WIDTH + _GAP + _MARGIN
    page = _Page(width, _MARGIN + height + _TITLE)
    _draw_title(page, counted, title)
    _draw_outline(page, counted)
    _draw_cards(page, modules, gap=(height - sum(cards)) / (len(cards) - 1))
    return page.figure


def save(figure: Figure, path: str | Path) -> None:
    """Writes a PNG with a palette, a third as large as matplotlib's own.

    Raises:
      OSError: when the file cannot be written.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)


class _Page:
    """A picture whose unit is an inch, its origin at the lower left."""

    def __init__(self, width: float, height: float):
        self.height = height
        self.figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(0, height))
        self._axes.set_axis_off()

    def box(self, left: float, bottom: float, width: float, height: float, colour: str) -> None:
        style = "round,pad=0,rounding_size=0.05"
        shape = FancyBboxPatch((left, bottom), width, height, style, fc=colour, ec=_INK, lw=0.6)
        self._axes.add_patch(shape)

    def area(self, left: float, bottom: float, width: float, height: float, colour: str) -> None:
        self._axes.add_patch(Rectangle((left, bottom), width, height, fc=colour, lw=0))

    def text(self, x: float, y: float, text: str, size: float = 8, **style) -> None:
        style = {"va": "center_baseline", "color": _INK, "linespacing": 1.05, **style}
        self._axes.text(x, y, text, size=size, parse_math=False, **style)

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through all points with its head at the last."""
        xs, ys = zip(*points[:-1], strict=True)
        self._axes.plot(xs, ys, color=_LINE, lw=0.9)
        style = {"arrowstyle": "-|>,head_width=0.12,head_length=0.24", "color": _LINE, "lw": 0.9}
        style |= {"shrinkA": 0, "shrinkB": 0}
        self._axes.annotate("", points[-1], points[-2], arrowprops=style)


def _draw_title(page: _Page, counted: Cost, title: str) -> None:
    facts = [
        f"input {format_shape(*counted.image)}",
        f"{counted.multiply_adds / 1e9:.3f} G multiply-adds",
        f"{counted.parameters / 1e6:.2f} M parameters",
    ]
    if counted.side_head:
        facts[-1] += f" ({counted.with_side_head.parameters / 1e6:.2f} M with the side head)"
    page.text(_MARGIN, page.height - 0.38, title, size=18, weight="bold")
    page.text(_MARGIN, page.height - 0.72, "   ·   ".join(facts), size=10, color=_GREY)


def _draw_outline(page: _Page, counted: Cost) -> None:
    """The stages from the bottom up, their outputs and their multiply-adds."""
    stages = counted.stages
    shapes = [counted.image, *(stage.shape for stage in stages), stages[-1].shape]
    output = _TRUNK + _TRUNK_WIDTH + 0.12
    for number, (_, group) in enumerate(groupby(enumerate(shapes), lambda row: row[1][:-1])):
        rows = [_row(row) for row, _ in group]
        left, width = _TRUNK - 0.15, _BARS + _BARS_WIDTH + 0.7 - _TRUNK
        page.area(left, rows[0], width, rows[-1] + _ROW - rows[0], _BANDS[number % 2])
    for row, shape in enumerate(shapes):
        page.text(output, _row(row) + _ROW / 2, format_shape(*shape))
    page.text(output, _row(len(shapes)) + 0.12, "output", color=_GREY)
    page.text(_BARS, _row(len(shapes)) + 0.12, "multiply-adds", color=_GREY)

    most = max(stage.multiply_adds for stage in stages)
    _draw_stage(page, 0, "input", "", "white")
    for row, stage in enumerate(stages, start=1):
        colour, middle = _colour(stage.kind), _row(row) + _ROW / 2
        _draw_stage(page, row, stage.name, stage.kind, colour)
        if stage.multiply_adds:
            width = _BARS_WIDTH * stage.multiply_adds / most
            page.area(_BARS, middle - 0.08, width, 0.16, colour)
            page.text(_BARS + width + 0.07, middle, _mega(stage))
    _draw_stage(page, len(stages) + 1, "softmax", "", _COLOURS["linear"])
    if counted.side_head:
        last_17x17 = max(
            row for row, stage in enumerate(stages, 1) if stage.kind.startswith("figure 6")
        )
        _draw_side_head(page, counted.side_head, last_17x17)


def _row(number: int) -> float:
    """The lower edge of a line of the outline; the input is number 0."""
    return _MARGIN + number * _ROW


def _mega(stage: Stage) -> str:
    mega = stage.multiply_adds / 1e6
    return f"{mega:,.0f} M" if mega >= 10 else f"{mega:.1f} M"


def _draw_stage(page: _Page, row: int, name: str, kind: str, colour: str) -> None:
    bottom, middle = _row(row) + (_ROW - _BOX) / 2, _TRUNK + _TRUNK_WIDTH / 2
    page.box(_TRUNK, bottom, _TRUNK_WIDTH, _BOX, colour)
    page.text(_TRUNK + 0.1, bottom + _BOX / 2, name, weight="bold")
    page.text(_TRUNK + _TRUNK_WIDTH - 0.1, bottom + _BOX / 2, kind, ha="right")
    if row:
        page.arrow((middle, bottom - _ROW + _BOX), (middle, bottom))


def _draw_side_head(page: _Page, head: Stage, row: int) -> None:
    """The side head, from the outline's line `row` to the left and up."""
    middle, start = _HEAD + _HEAD_WIDTH / 2, _row(row) + _ROW / 2
    points = [(_TRUNK, start), (middle, start)]
    texts = [(str(layer), str(layer.shape[-1]), _COLOURS[layer.kind]) for layer in head.layers]
    for kind, width, colour in [*texts, ("softmax", "", _COLOURS["linear"])]:
        row += 1
        bottom = _row(row) + (_ROW - _BOX) / 2
        page.arrow(*points, (middle, bottom))
        page.box(_HEAD, bottom, _HEAD_WIDTH, _BOX, colour)
        page.text(_HEAD + 0.1, bottom + _BOX / 2, kind)
        page.text(_HEAD + _HEAD_WIDTH - 0.1, bottom + _BOX / 2, width, ha="right")
        points = [(middle, bottom + _BOX)]
    above = _row(row + 1) + 0.12
    page.text(_HEAD, above, f"side head, {head.kind}", weight="bold")
    page.text(_HEAD + _HEAD_WIDTH, above, _mega(head), ha="right")


def _modules(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Neighbours that are one figure with one set of filters; only their widths differ."""

    def design(stage: Stage) -> tuple:
        return stage.kind, [(x.kind, x.kernel, x.stride) for x in stage.layers]

    figures = [stage for stage in stages if stage.kind.startswith("figure")]
    return [list(group) for _, group in groupby(figures, design)]


def _reduces(module: list[Stage]) -> bool:
    return module[0].kind in ("figure 9", "figure 10")


def _branches(module: list[Stage]) -> list[Branch]:
    """Its branches in the paper's order, the longest first. Figure 9's pool belongs to none."""
    branches: dict[str, dict[int, list[tuple[str, str]]]] = {}
    for layers in zip(*(stage.layers for stage in module), strict=True):
        kind, branch, level = layers[0].kind, "branch_pool", 0
        if kind == "max pool" and module[0].kind == "figure 9":
            continue
        if kind == "conv":
            branch, _, number = layers[0].name.rstrip("ab").partition("_")
            branch, level = (branch, int(number)) if number.isdigit() else (layers[0].name, 1)
        branches.setdefault(branch, {}).setdefault(level, []).append((_label(layers), kind))
    columns = [[levels[key] for key in sorted(levels)] for levels in branches.values()]
    return sorted(columns, key=lambda levels: (-len(levels), levels[0][0][1] != "conv"))


def _label(layers: Sequence[Layer]) -> str:
    """Of a layer in all stages of a module: its filter, and its width or range of widths."""
    layer, widths = layers[0], sorted(layer.shape[-1] for layer in layers)
    size = format_shape(*layer.kernel) + (f"/{layer.stride}" if layer.stride > 1 else "")
    if layer.kind != "conv":
        return layer.kind.replace("average", "avg") + f"\n{size}"
    return f"{size}\n" + "-".join(map(str, dict.fromkeys([widths[0], widths[-1]])))


def _card_height(module: list[Stage]) -> float:
    levels = max(map(len, _branches(module))) + (module[0].kind == "figure 9")
    return _HEADING + 2 * _BAR + (levels + 0.8) * _LEVEL


def _draw_cards(page: _Page, modules: list[list[Stage]], gap: float) -> None:
    """Modules that keep their grid in one column, the reductions between them in the other."""
    bottom = _row(0)
    for module in modules:
        height = _card_height(module)
        if _reduces(module):
            left = _CARDS + _CARD_WIDTH + _GAP
            _draw_card(page, module, left, bottom - (gap + height) / 2)
        else:
            _draw_card(page, module, _CARDS, bottom)
            bottom += height + gap


def _draw_card(page: _Page, module: list[Stage], left: float, bottom: float) -> None:
    """A module as the paper draws it: base, branches, filter concatenation."""
    stage, last, height = module[0], module[-1], _card_height(module)
    top = bottom + height - _HEADING
    page.box(left, bottom, _CARD_WIDTH, height, "white")
    page.box(left, top, _CARD_WIDTH, _HEADING, _colour(stage.kind))
    count = f"{len(module)} x " if len(module) > 1 else ""
    names = " to ".join(dict.fromkeys([stage.name, last.name]))
    page.text(left + 0.12, top + _HEADING / 2, count + stage.kind, size=10, weight="bold")
    page.text(left + _CARD_WIDTH - 0.12, top + _HEADING / 2, names, ha="right")

    left, width = left + 0.12, _CARD_WIDTH - 0.24
    concatenation, pools = "filter concatenation", []
    if stage.kind == "figure 9":
        pools = [layer for layer in stage.layers if layer.kind == "max pool"]
    pool_first = pools == [stage.layers[0]]
    below = ["base", *map(str, pools)] if pool_first else ["base"]
    above = [concatenation] if pool_first else [concatenation, *map(str, pools)]
    above[-1] += f", {format_shape(*last.shape)}"
    low = _draw_bars(page, below, left, width, bottom + 0.12)
    high = top - 0.12 - _BAR - (len(above) - 1) * _LEVEL
    _draw_bars(page, above, left, width, high)
    _draw_branches(page, _branches(module), left, width, low, high)


def _draw_bars(page: _Page, texts: Sequence[str], left: float, width: float, low: float) -> float:
    """Draws what all branches share, from the height `low` up, and returns where it ends."""
    middle = left + width / 2
    for number, text in enumerate(texts):
        if number:
            page.arrow((middle, low), (middle, low := low + _LEVEL - _BAR))
        page.box(left, low, width, _BAR, _colour(text) if "pool" in text else _BANDS[1])
        page.text(middle, low + _BAR / 2, text, ha="center")
        low += _BAR
    return low


def _draw_branches(
    page: _Page, branches: list[Branch], left: float, width: float, low: float, high: float
) -> None:
    """Columns of layers between the heights `low` and `high`."""
    unit = width / sum(max(map(len, levels)) for levels in branches)
    size = min(unit - 0.07, 0.75)
    for levels in branches:
        wide = unit * max(map(len, levels))
        ends = [(left + wide / 2, low)]
        for number, level in enumerate(levels, start=1):
            bottom, start = low + number * _LEVEL - _BOX, ends[0]
            ends = []
            for index, (label, kind) in enumerate(level):
                middle = left + wide * (index + 0.5) / len(level)
                page.arrow(start, (middle, bottom))
                page.box(middle - size / 2, bottom, size, _BOX, _COLOURS[kind])
                page.text(middle, bottom + _BOX / 2, label, size=7, ha="center", va="center")
                ends.append((middle, bottom + _BOX))
        for end in ends:
            page.arrow(end, (end[0], high))
        left += wide


def _colour(kind: str) -> str:
    """Of a stage's kind, such as "figure 5" or "conv padded 3x3/1"."""
    return next(colour for name, colour in _COLOURS.items() if re.match(rf"{name}\b", kind))
