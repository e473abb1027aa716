"""The architecture as a picture, drawn from what was counted: `python -m inception.cost --plot`.

Left, the network from the input at the bottom to the softmax on top, as the paper draws its
figures: every stage with its grid and its multiply-adds, the side head beside it. Right, each module
once, branch by branch, to hold beside figures 5 to 10.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from inception.counting import Cost, Layer, Stage, times

_DPI = 100
_ROW, _BOX = 0.46, 0.33  # inches: a line of the outline, and its box
_TRUNK, _TRUNK_WIDTH = 2.55, 2.5  # left edge of the outline's boxes
_HEAD, _HEAD_WIDTH = 0.35, 1.75  # the same of the side head's
_BARS, _BARS_WIDTH = 6.2, 1.45
_CARDS, _CARD_WIDTH, _CARD_GAP = 9.0, 3.75, 0.25
_LEVEL = 0.42  # from one layer of a module to the next
_INK, _GREY, _PAPER = "#22303c", "#6b7a88", "#ffffff"
_BANDS = ("#f3f6f9", "#e9eff4")  # behind stages on the same grid, in turn
_COLOURS = {
    "conv": "#a9cdf0",
    "max pool": "#f6b3a6",
    "average pool": "#f9d8a0",
    "linear": "#cdb8e8",
    "softmax": "#cdb8e8",
    "input": "#dfe5ea",
    "concat": "#dfe5ea",
    "figure 5": "#8fd0b5",
    "figure 6": "#66b8b3",
    "figure 7": "#4f9fb5",
    "figure 8": "#cdb8e8",
    "figure 9": "#f0a3bd",
    "figure 10": "#f0a3bd",
}


class Branch(NamedTuple):
    """One column of a module: its layers from the bottom up, several where they are parallel."""

    levels: list[list[str]]
    colours: list[str]


class Module(NamedTuple):
    """Stages that are one figure with one set of filters, only their widths may differ."""

    stages: list[Stage]

    @property
    def title(self) -> str:
        """What a card says on top."""
        names = [stage.name for stage in self.stages]
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        count = f"{len(names)} x " if len(names) > 1 else ""
        return f"{count}{self.stages[0].kind}", span


def draw(counted: Cost, title: str) -> Figure:
    """Draws a network.

    Args:
      counted: what `counting.cost` found out about it.
      title: what to call it, the config's name for example.

    Returns:
      A figure of its own, not pyplot's.
    """
    raise NotImplementedError
