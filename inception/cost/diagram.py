"""Draws the architecture from what was counted: `python -m inception.cost --plot`.

Left, the network from the input at the bottom to the softmax at the top, as in the paper's figures:
every stage with its output shape and multiply-adds, and the auxiliary head. Right, each module
once, branch by branch, as in figures 5 to 10: modules that keep their grid, and the reductions
between them.
"""

import re
from collections.abc import Sequence
from itertools import count, groupby, pairwise
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inception.cost.counting import LayerCost, NetworkCost, StageCost, format_shape

# Horizontal coordinates are inches, vertical ones rows; a row is a stage or a layer.
_ROW, _MARGIN, _TITLE = 0.47, 0.3, 1.2  # inches
_HALF = 0.35  # half the height of a box, in rows
_HEAD, _HEAD_WIDTH = 1.2, 1.8  # middle and width of the auxiliary head,
_TRUNK, _TRUNK_WIDTH = 3.88, 2.65  # and of the outline
_OUTPUTS, _BARS, _BARS_WIDTH = 5.32, 6.3, 1.3  # left edges of outputs and multiply-adds
_CARDS, _CARD_WIDTH = (10.6, 14.5), 3.6  # modules: grid-preserving, reductions
_WIDTH = _CARDS[1] + _CARD_WIDTH / 2 + _MARGIN

_INK, _GRAY, _LINE = "#22303c", "#667380", "#8795a3"
_BANDS = ("#f3f6f9", "#e6ecf1")  # background of the stages of one grid, alternating
_COLORS = {
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
    """Draws a network on a figure of its own, without pyplot."""
    figures = [stage for stage in network.stages if stage.kind.startswith("figure")]
    modules = [list(module) for _, module in groupby(figures, _design)]
    heights = [_height(module) for module in modules]
    kept = [height for module, height in zip(modules, heights, strict=True) if not _reduces(module)]
    rows = max(len(network.stages) + 2, sum(kept))
    gap = (rows - sum(kept)) / (len(kept) - 1)
    size = _WIDTH, _MARGIN + rows * _ROW + _TITLE
    figure = Figure(figsize=size, dpi=120, facecolor="white")
    limits = -0.5 - _MARGIN / _ROW, rows - 0.5 + _TITLE / _ROW
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=limits)
    axes.set_axis_off()
    _draw_outline(axes, network, title)
    bottom = 0.0
    for module, height in zip(modules, heights, strict=True):
        if _reduces(module):  # in the second column, at the gap in the first
            _draw_module(axes, (_CARDS[1], bottom - (gap + height) / 2), module)
        else:
            _draw_module(axes, (_CARDS[0], bottom), module)
            bottom += height + gap
    return figure


def draw_modules(network: NetworkCost, names: Sequence[str]) -> Figure:
    """Draws the modules of some stages side by side, on a figure that pyplot does not manage.

    Args:
      network: The network.
      names: Stages that are one of the paper's figures, such as "Mixed_5b".

    Raises:
      ValueError: For a name that is not one of such a stage.
    """
    figures = {stage.name: stage for stage in network.stages if stage.kind.startswith("figure")}
    if unknown := [name for name in names if name not in figures]:
        raise ValueError(f"{unknown[0]!r} is not a module of the network, which has {[*figures]}")
    modules = [[figures[name]] for name in names]
    rows, width = max(map(_height, modules)), len(modules) * (_CARD_WIDTH + _MARGIN) + _MARGIN
    figure = Figure(figsize=(width, rows * _ROW + _MARGIN), dpi=120, facecolor="white")
    limits = -0.5 - _MARGIN / _ROW / 2, rows - 0.5 + _MARGIN / _ROW / 2
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=limits)
    axes.set_axis_off()
    for number, module in enumerate(modules):
        middle = (number + 0.5) * (_CARD_WIDTH + _MARGIN) + _MARGIN / 2
        _draw_module(axes, (middle, 0), module)
    return figure


def _draw_outline(axes: Axes, network: NetworkCost, title: str) -> None:
    """The stages from the bottom up with outputs and multiply-adds, and the auxiliary head."""
    facts = [
        f"input {format_shape(*network.image)}",
        f"{network.total.multiply_adds / 1e9:.3f} G multiply-adds",
        f"{network.total.parameters / 1e6:.2f} M parameters",
    ]
    if network.aux_head:
        facts[-1] += (
            f" ({network.total_with_aux_head.parameters / 1e6:.2f} M with the auxiliary head)"
        )
    last = StageCost("softmax", shape=network.stages[-1].shape)
    stages = [StageCost("input", shape=network.image), *network.stages, last]
    _text(axes, _MARGIN, len(stages) + 1.24, title, size=18, weight="bold")
    _text(axes, _MARGIN, len(stages) + 0.52, "   ·   ".join(facts), size=10, color=_GRAY)
    _text(axes, _OUTPUTS, len(stages) - 0.25, "output", color=_GRAY)
    _text(axes, _BARS, len(stages) - 0.25, "multiply-adds", color=_GRAY)

    grids = [stage.shape[:-1] for stage in stages]
    for band, grid in enumerate(dict.fromkeys(grids)):
        axes.bar(5.275, grids.count(grid), 5.75, grids.index(grid) - 0.5, color=_BANDS[band % 2])
    boxes = [(stage.kind or stage.name, stage.name, stage.kind) for stage in stages]
    _stack(axes, (_TRUNK, 0), _TRUNK_WIDTH, boxes, {"weight": "bold"})
    unit = max(stage.multiply_adds for stage in stages) / _BARS_WIDTH
    for row, stage in enumerate(stages):
        _text(axes, _OUTPUTS, row, format_shape(*stage.shape))
        if stage.multiply_adds:
            length = stage.multiply_adds / unit
            axes.barh(row, length, 0.34, _BARS, color=_color(stage.kind))
            _text(axes, _BARS + length + 0.07, row, _mega(stage.multiply_adds))

    if head := network.aux_head:  # from the last 17x17 grid to the left and up
        row = max(row for row, stage in enumerate(stages) if "figure 6" in stage.kind)
        axes.plot([_TRUNK - _TRUNK_WIDTH / 2, _HEAD], [row, row], color=_LINE, lw=0.9)
        axes.plot([_HEAD, _HEAD], [row, row + _HALF], color=_LINE, lw=0.9)
        _arrows(axes, [(_HEAD, row), (_HEAD, row + 1)])
        boxes = [(layer.kind, str(layer), str(layer.shape[-1])) for layer in head.layers]
        boxes += [("softmax", "softmax", "")]
        _stack(axes, (_HEAD, row + 1), _HEAD_WIDTH, boxes, {})
        above, half = row + len(boxes) + 0.75, _HEAD_WIDTH / 2
        _text(axes, _HEAD - half, above, f"auxiliary head, {head.kind}", weight="bold")
        _text(axes, _HEAD + half, above, _mega(head.multiply_adds), ha="right")


def _mega(multiply_adds: int) -> str:
    mega = multiply_adds / 1e6
    return f"{mega:,.0f} M" if mega >= 10 else f"{mega:.1f} M"


def _design(stage: StageCost) -> tuple:
    """Equal for consecutive modules of one figure and the same filters; widths may differ."""
    return stage.kind, [(each.kind, each.kernel, each.stride, each.inputs) for each in stage.layers]


def _reduces(module: Sequence[StageCost]) -> bool:
    return module[0].kind in ("figure 9", "figure 10")


def _height(module: Sequence[StageCost]) -> float:
    """Rows of its base, layers, concatenation, layers after that, and heading."""
    layers = module[0].layers
    after = sum(len(layer.inputs) > 1 for layer in layers)
    return max(row for _, row in place_layers(layers).values()) + after + 2.85


def place_layers(layers: Sequence[LayerCost]) -> dict[int, Place]:
    """Places a stage's layers as a tree that grows from its base.

    Returns:
      Column and row of each layer, by its position in `layers`; the base is -1. Branches are in
      the paper's order, the longest first. Layers that read several others are left out.
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


def _draw_module(axes: Axes, foot: Place, module: Sequence[StageCost]) -> None:
    """A module as the paper draws it: base, branches, filter concatenation."""
    (middle, bottom), height = foot, _height(module)
    first, last, layers = module[0], module[-1], module[0].layers
    places = place_layers(layers)
    columns = 1 + max(column for column, _ in places.values())
    width = _CARD_WIDTH / 1.07
    step, top = width / columns, 1 + max(row for _, row in places.values())
    axes.bar(middle, height, _CARD_WIDTH, bottom - 0.5, color="white", ec=_INK, lw=0.6)

    def inches(column: float, row: float) -> Place:
        return middle + (column - (columns - 1) / 2) * step, bottom + row

    read = [layer.inputs for layer in layers]
    for number, alike in enumerate(zip(*(stage.layers for stage in module), strict=True)):
        if number in places:
            column, row = places[number]
            before = places[read[number][0]] if read[number] else (column, 0)
            after = [] if (number,) in read else [(column, top)]
            _arrows(axes, [inches(*place) for place in (before, (column, row), *after)])
            _box(axes, inches(column, row), 0.85 * step, alike[0].kind, _label(alike), size=7)
    # Figure 9's pool may come after the concatenation.
    bars = ["filter concatenation", *(str(layer) for layer in layers if len(layer.inputs) > 1)]
    bars[-1] += f", {format_shape(*last.shape)}"
    rows = [bottom + top + number for number in range(len(bars))]
    for row, bar in zip([bottom, *rows], ["base", *bars], strict=True):
        _box(axes, (middle, row), width, bar, bar)
    _arrows(axes, [(middle, row) for row in rows])

    title = (f"{len(module)} x " if len(module) > 1 else "") + first.kind
    names = " to ".join(dict.fromkeys([first.name, last.name]))
    heading, style = (middle, bottom + height - 0.5 - _HALF), {"size": 10, "weight": "bold"}
    _box(axes, heading, _CARD_WIDTH, first.kind, left=title, right=names, style=style)


def _label(layers: Sequence[LayerCost]) -> str:
    """Label of a layer in all stages of a module: filter, and width or range of widths."""
    layer, widths = layers[0], sorted(layer.shape[-1] for layer in layers)
    size = format_shape(*layer.kernel) + (f"/{layer.stride}" if layer.stride > 1 else "")
    if layer.kind != "conv":
        return layer.kind.replace("average", "avg") + f"\n{size}"
    return f"{size}\n" + "-".join(map(str, dict.fromkeys([widths[0], widths[-1]])))


def _stack(
    axes: Axes, foot: Place, width: float, boxes: Sequence[tuple[str, str, str]], style: dict
) -> None:
    """Stacked boxes, from `foot` up: kind, left text and right text of each."""
    places = [(foot[0], foot[1] + number) for number in range(len(boxes))]
    for place, (kind, left, right) in zip(places, boxes, strict=True):
        _box(axes, place, width, kind, left=left, right=right, style=style)
    _arrows(axes, places)


def _box(
    axes: Axes,
    place: Place,
    width: float,
    kind: str,
    text: str = "",
    size: float = 8,
    left: str = "",
    right: str = "",
    style: dict | None = None,
) -> None:
    """A box with texts in its middle and at its ends; `style` is the left text's."""
    (x, row), end = place, width / 2 - 0.1
    axes.bar(x, 2 * _HALF, width, row - _HALF, color=_color(kind), ec=_INK, lw=0.6)
    _text(axes, x, row, text, size, ha="center", va="center", linespacing=1.05)
    _text(axes, x - end, row, left, **(style or {}))
    _text(axes, x + end, row, right, ha="right")


def _text(axes: Axes, x: float, row: float, text: str, size: float = 8, **style) -> None:
    style = {"va": "center_baseline", "color": _INK, **style}
    axes.text(x, row, text, size=size, parse_math=False, **style)


def _arrows(axes: Axes, places: Sequence[Place]) -> None:
    """Arrows from the top of each box to the bottom of the next."""
    style = {"arrowstyle": "-|>,head_width=0.12,head_length=0.24", "color": _LINE, "lw": 0.9}
    style |= {"shrinkA": 0, "shrinkB": 0}
    for (x, row), (next_x, next_row) in pairwise(places):
        axes.annotate("", (next_x, next_row - _HALF), (x, row + _HALF), arrowprops=style)


def _color(kind: str) -> str:
    """Color of a kind such as "figure 5 with a 5x5" or "conv padded 3x3/1"."""
    return next(color for name, color in _COLORS.items() if re.match(rf"({name})\b", kind))
