"""Draws how data flows through a run.

python -m docs.draw_flow docs/images/data_flow.svg
"""

import sys
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from inception import command_line
from inception.data.paths import local_path

# Column and row from the top, heading, what it is. The host goes up, the devices down.
BOXES = {
    "config": (0, 2, "config", "configs/*.py, defaults.py"),
    "source": (0, 1, "source", "encoded image, label"),
    "crop": (0, 0, "decode, crop, resize", "uint8, a batch of (seed, step)"),
    "augment": (1, 0, "flip, color, scale", "float32, sharded over the devices"),
    "network": (1, 1, "network", "logits, endpoints"),
    "losses": (1, 2, "losses", "main and auxiliary head"),
    "optimizer": (1, 3, "gradients, optimizer", "clip, weight decay, RMSProp"),
    "state": (1, 4, "TrainState", "weights, statistics, averages"),
    "metrics": (2, 2, "metrics", "metrics.jsonl, TensorBoard"),
    "evaluation": (2, 3, "evaluation", "results.json, every image once"),
    "checkpoints": (2, 4, "checkpoints", "whole states, with digests"),
}
ARROWS = (
    *(("config", "source"), ("source", "crop"), ("crop", "augment"), ("augment", "network")),
    *(("network", "losses"), ("losses", "optimizer"), ("optimizer", "state")),
    *(("losses", "metrics"), ("state", "evaluation"), ("state", "checkpoints")),
)
COLUMNS = (("host", "#f8daa4"), ("devices", "#aed0f2"), ("workdir", "#a5dba0"))
_WIDTH, _HEIGHT, _PITCH = 2.6, 0.62, 3.5  # inches: of a box, and between columns
_INK, _GRAY = "#22303c", "#667380"


def draw() -> Figure:
    """Draws the boxes, the arrows between them, and the state's way back into the next step."""
    figure = Figure(figsize=(3 * _PITCH, 5.1), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-_PITCH / 2, 2.5 * _PITCH), ylim=(-4.5, 0.9))
    axes.set_axis_off()
    for column, (title, _) in enumerate(COLUMNS):
        axes.text(column * _PITCH, 0.62, title, ha="center", size=13, weight="bold", color=_INK)
    for column, row, title, what in BOXES.values():
        left, bottom = column * _PITCH - _WIDTH / 2, -row - _HEIGHT / 2
        axes.add_patch(
            Rectangle(
                (left, bottom),
                _WIDTH,
                _HEIGHT,
                facecolor=COLUMNS[column][1],
                edgecolor=_GRAY,
                lw=0.8,
            )
        )
        center = column * _PITCH
        axes.text(center, -row + 0.07, title, ha="center", size=11, weight="bold", color=_INK)
        axes.text(center, -row - 0.21, what, ha="center", size=9, color=_INK)
    for start, end in ARROWS:
        _arrow(axes, _edge(start, end), _edge(end, start))
    side = _PITCH - _WIDTH / 2
    _arrow(axes, (side, -4), (side, -1), connectionstyle="arc3,rad=-0.22")
    axes.text(side - 0.2, -2.97, "next step", ha="center", size=9, color=_GRAY, rotation=90)
    return figure


def _edge(box: str, other: str) -> tuple[float, float]:
    """Where an arrow between two boxes touches the first."""
    (column, row), (to_column, to_row) = BOXES[box][:2], BOXES[other][:2]
    if column == to_column:
        return column * _PITCH, -row + (_HEIGHT if to_row < row else -_HEIGHT) / 2
    return column * _PITCH + (_WIDTH if to_column > column else -_WIDTH) / 2, -row


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style) -> None:
    arrow = {"arrowstyle": "-|>", "color": _GRAY, "lw": 1.2, "shrinkA": 0, "shrinkB": 0, **style}
    axes.annotate("", end, start, arrowprops=arrow)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the picture that the command line asks for."""
    parser = command_line.parser("python -m docs.draw_flow", __doc__)
    parser.add_argument("output", metavar="FILE.svg", type=local_path)
    args, _ = command_line.parse(parser, argv)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "inception"}):
        draw().savefig(args.output, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(command_line.run(main))
