"""The architecture as a picture, drawn from what was counted: `python -m inception.cost --plot`.

Left, the network from the input at the bottom to the softmax on top, as the paper draws its
figures: every stage with its grid and multiply-adds, and the side head. Right, each module once,
branch by branch, to hold beside figures 5 to 10: those that keep their grid, and the reductions
between them.
"""

import re
from collections.abc import Sequence
from itertools import count, groupby, pairwise
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inception.cost.counting import LayerCost, NetworkCost, StageCost, format_shape

_ROW, _MARGIN, _TITLE, _GAP = 0.47, 0.3, 1.2, 0.3  # inches; a row is a stage or a layer
_HALF = 0.35  # of a box, in rows
_HEAD, _HEAD_WIDTH = 1.2, 1.8  # middle and width, inches: of the side head,
_TRUNK, _TRUNK_WIDTH = 3.88, 2.65  # and of the outline,
_OUTPUTS, _BARS, _BARS_WIDTH = 5.32, 6.3, 1.3  # left edges of its outputs and multiply-adds,
_CARDS, _CARD_WIDTH = 8.8, 3.6  # and of the modules

_INK, _GREY, _LINE = "#22303c", "#667380", "#8795a3"
_BANDS = ("#f3f6f9", "#e6ecf1")  # behind the stages of one grid, in turn
_COLOURS = {
    "input": "white",
    "conv": "#aed0f2",
    "max pool": "#f5b5a8",
    "average pool": "#f8daa4",
    "linear|softmax": "#cfbce9",
    "figure 5": "#a5dba0",
    "figure 6": "#7fcbbb",
    "figure 7": "#62b3c4",
    "figure (9|10)": "#efa5bf",
    "base|filter": _BANDS[1],
}

Place = tuple[float, float]  # column or inches, and row


def draw(network: NetworkCost, title: str) -> Figure:
    """Draws a network.

    Args:
      network: what `counting.count_network` found out about it.
      title: what to call it, the config's name for example.

    Returns:
      A figure of its own, not pyplot's.
    """
    modules = _modules(network.stages)
    heights = [_height(module) for module in modules if not _reduces(module)]
    rows = max(len(network.stages) + 2, sum(heights))
    gap = (rows - sum(heights)) / (len(heights) - 1)
    size = _CARDS + 2 * _CARD_WIDTH + _GAP + _MARGIN, _MARGIN + rows * _ROW + _TITLE
    figure = Figure(figsize=size, dpi=120, facecolor="white")

    def panel(left: float, bottom: float, width: float, rows: float) -> Axes:
        place = np.array([left, _MARGIN + bottom * _ROW, width, rows * _ROW]) / (*size, *size)
        axes = figure.add_axes(tuple(place), xticks=[], yticks=[], ylim=(-0.5, rows - 0.5))
        axes.spines[:].set(color=_INK, lw=0.6)
        return axes

    _draw_outline(panel(0, 0, _CARDS, rows), network, title)
    bottom = 0.0
    for module in modules:
        height = _height(module)
        if _reduces(module):  # in a second column, beside the gap in the first
            left, middle = _CARDS + _CARD_WIDTH + _GAP, bottom - gap / 2
            _draw_module(panel(left, middle - height / 2, _CARD_WIDTH, height), module)
        else:
            _draw_module(panel(_CARDS, bottom, _CARD_WIDTH, height), module)
            bottom += height + gap
    return figure


def _draw_outline(axes: Axes, network: NetworkCost, title: str) -> None:
    """The stages from the bottom up, their outputs and their multiply-adds; the side head."""
    facts = [
        f"input {format_shape(*network.image)}",
        f"{network.total.multiply_adds / 1e9:.3f} G multiply-adds",
        f"{network.total.parameters / 1e6:.2f} M parameters",
    ]
    if network.side_head:
        facts[-1] += f" ({network.total_with_side_head.parameters / 1e6:.2f} M with the side head)"
    first, last = StageCost("input", "", network.image, 0, ()), network.stages[-1]
    stages = [first, *network.stages, StageCost("softmax", "", last.shape, 0, ())]
    axes.set(xlim=(0, _CARDS), frame_on=False)
    _text(axes, _MARGIN, len(stages) + 1.24, title, size=18, weight="bold")
    _text(axes, _MARGIN, len(stages) + 0.52, "   ·   ".join(facts), size=10, color=_GREY)
    _text(axes, _OUTPUTS, len(stages) - 0.25, "output", color=_GREY)
    _text(axes, _BARS, len(stages) - 0.25, "multiply-adds", color=_GREY)

    numbers = count()
    for band, (_, grid) in enumerate(groupby(stages, lambda stage: stage.shape[:-1])):
        axes.barh([next(numbers) for _ in grid], 5.75, 1, 2.4, color=_BANDS[band % 2], zorder=0)
    for row, stage in enumerate(stages):
        _box(axes, (_TRUNK, row), _TRUNK_WIDTH, stage.kind or stage.name)
        _ends(axes, (_TRUNK, row), _TRUNK_WIDTH - 0.2, stage.name, stage.kind, weight="bold")
        _text(axes, _OUTPUTS, row, format_shape(*stage.shape))
    _arrows(axes, [(_TRUNK, row) for row in range(len(stages))])
    costs = np.array([stage.multiply_adds for stage in network.stages])
    colours, rows = [_colour(stage.kind) for stage in network.stages], range(1, len(stages) - 1)
    bars = axes.barh(rows, _BARS_WIDTH * costs / costs.max(), 0.34, _BARS, color=colours)
    axes.bar_label(bars, [_mega(cost) for cost in costs], padding=5, size=8, color=_INK)
    if network.side_head:
        last_17x17 = max(row for row, stage in enumerate(stages) if "figure 6" in stage.kind)
        _draw_side_head(axes, network.side_head, last_17x17)


def _draw_side_head(axes: Axes, head: StageCost, row: int) -> None:
    """The side head, from the outline's line `row` to the left and up."""
    axes.plot([_TRUNK - _TRUNK_WIDTH / 2, _HEAD], [row, row], color=_LINE, lw=0.9)
    axes.plot([_HEAD, _HEAD], [row, row + _HALF], color=_LINE, lw=0.9)
    boxes = [(str(layer), str(layer.shape[-1])) for layer in head.layers] + [("softmax", "")]
    places = [(_HEAD, above) for above in range(row, row + len(boxes) + 1)]
    for place, (kind, width) in zip(places[1:], boxes, strict=True):
        _box(axes, place, _HEAD_WIDTH, kind)
        _ends(axes, place, _HEAD_WIDTH - 0.2, kind, width)
    _arrows(axes, places)
    above, title = (_HEAD, row + len(boxes) + 0.75), f"side head, {head.kind}"
    _ends(axes, above, _HEAD_WIDTH, title, _mega(head.multiply_adds), weight="bold")


def _mega(multiply_adds: int) -> str:
    mega = multiply_adds / 1e6
    return "" if not mega else f"{mega:,.0f} M" if mega >= 10 else f"{mega:.1f} M"


def _modules(stages: Sequence[StageCost]) -> list[list[StageCost]]:
    """Neighbours that are one figure with one set of filters; only their widths differ."""

    def design(stage: StageCost) -> tuple:
        return stage.kind, [(x.kind, x.kernel, x.stride, x.inputs) for x in stage.layers]

    figures = [stage for stage in stages if stage.kind.startswith("figure")]
    return [list(group) for _, group in groupby(figures, design)]


def _reduces(module: Sequence[StageCost]) -> bool:
    return module[0].kind in ("figure 9", "figure 10")


def _height(module: Sequence[StageCost]) -> float:
    """Rows of its base, layers, concatenation, what stands behind that, and heading."""
    layers = module[0].layers
    behind = sum(len(layer.inputs) > 1 for layer in layers)
    return max(row for _, row in place_layers(layers).values()) + behind + 2.85


def place_layers(layers: Sequence[LayerCost]) -> dict[int, Place]:
    """Places a stage's layers as a tree that grows from its base.

    Returns:
      Column and row of each layer, by its position in the order of computation; the base is -1.
      Branches are in the paper's order, the longest first. What reads several layers is left out.
    """
    places: dict[int, Place] = {}
    columns = count()

    def readers(number: int) -> list[int]:
        inputs = () if number < 0 else (number,)
        return [index for index, layer in enumerate(layers) if layer.inputs == inputs]

    def depth(number: int) -> int:
        return 1 + max(map(depth, readers(number)), default=0)

    def grow(number: int, row: int) -> float:
        order = sorted(readers(number), key=lambda it: (-depth(it), layers[it].kind != "conv"))
        column = fmean([grow(each, row + 1) for each in order] or [next(columns)])
        places[number] = column, row
        return column

    grow(-1, 0)
    return places


def _draw_module(axes: Axes, module: Sequence[StageCost]) -> None:
    """A module as the paper draws it: base, branches, filter concatenation."""
    first, last, layers = module[0], module[-1], module[0].layers
    places = place_layers(layers)
    width = 1 + max(column for column, _ in places.values())
    middle, top = (width - 1) / 2, 1 + max(row for _, row in places.values())
    axes.set_xlim(middle - 0.535 * width, middle + 0.535 * width)

    inputs = [layer.inputs for layer in layers]
    for number, same in enumerate(zip(*(stage.layers for stage in module), strict=True)):
        if number in places:
            column, row = places[number]
            before = places[inputs[number][0]] if inputs[number] else (column, 0)
            after = [(column, top)] if (number,) not in inputs else []
            _arrows(axes, [before, (column, row), *after])
            _box(axes, (column, row), 0.85, same[0].kind, _label(same), size=7)
    # Figure 9's pool may stand behind the concatenation.
    bars = ["filter concatenation", *(str(layer) for layer in layers if len(layer.inputs) > 1)]
    bars[-1] += f", {format_shape(*last.shape)}"
    rows = [top + number for number in range(len(bars))]
    for row, bar in zip([0, *rows], ["base", *bars], strict=True):
        _box(axes, (middle, row), width, bar, bar)
    _arrows(axes, [(middle, row) for row in rows])

    heading = axes.get_ylim()[1] - 0.75
    axes.bar(middle, 0.75, 2 * width, heading, color=_colour(first.kind), ec=_INK, lw=0.6)
    title = (f"{len(module)} x " if len(module) > 1 else "") + first.kind
    names = " to ".join(dict.fromkeys([first.name, last.name]))
    _ends(axes, (middle, heading + 0.375), width, title, names, size=10, weight="bold")


def _label(layers: Sequence[LayerCost]) -> str:
    """Of a layer in all stages of a module: its filter, and its width or range of widths."""
    layer, widths = layers[0], sorted(layer.shape[-1] for layer in layers)
    size = format_shape(*layer.kernel) + (f"/{layer.stride}" if layer.stride > 1 else "")
    if layer.kind != "conv":
        return layer.kind.replace("average", "avg") + f"\n{size}"
    return f"{size}\n" + "-".join(map(str, dict.fromkeys([widths[0], widths[-1]])))


def _box(
    axes: Axes, place: Place, width: float, kind: str, text: str = "", size: float = 8
) -> None:
    x, row = place
    axes.bar(x, 2 * _HALF, width, row - _HALF, color=_colour(kind), ec=_INK, lw=0.6)
    _text(axes, x, row, text, size, ha="center", va="center", linespacing=1.05)


def _ends(axes: Axes, place: Place, width: float, first: str, last: str, **style) -> None:
    """Writes two texts `width` apart; `style` is the first one's."""
    (x, row), half = place, width / 2
    _text(axes, x - half, row, first, **style)
    _text(axes, x + half, row, last, ha="right")


def _text(axes: Axes, x: float, row: float, text: str, size: float = 8, **style) -> None:
    style = {"va": "center_baseline", "color": _INK, **style}
    axes.text(x, row, text, size=size, parse_math=False, **style)


def _arrows(axes: Axes, places: Sequence[Place]) -> None:
    """Leads from the top of each box to the foot of the next."""
    style = {"arrowstyle": "-|>,head_width=0.12,head_length=0.24", "color": _LINE, "lw": 0.9}
    style |= {"shrinkA": 0, "shrinkB": 0}
    for (x, row), (next_x, next_row) in pairwise(places):
        axes.annotate("", (next_x, next_row - _HALF), (x, row + _HALF), arrowprops=style)


def _colour(kind: str) -> str:
    """Of a box by what it begins with, such as "figure 5" or "conv padded 3x3/1"."""
    return next(colour for name, colour in _COLOURS.items() if re.match(rf"({name})\b", kind))
