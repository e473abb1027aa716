"""The layout: parts, one below the other, of rows of images."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

COLUMNS = 6  # images in a row
# Inches, at 100 pixels each.
_CELL, _GAP, _CAPTION = 1.05, 0.06, 0.26
_LEFT, _HEADING = 1.1, 0.62
_WIDTH = _LEFT + COLUMNS * (_CELL + _GAP)
# A dollar in a class's name does not mean mathematics.
_STYLE: Any = {"font.size": 8, "axes.titlesize": 8, "axes.titlepad": 4, "text.parse_math": False}


class Row(NamedTuple):
    """A row of images."""

    label: str  # to the left of it
    images: Any  # a sequence of arrays [height, width, 3], uint8 or float in [0, 1]
    captions: Sequence[str] = ()  # above the images

    @property
    def height(self) -> float:
        """Inches, with the captions or the gap above."""
        return _CELL + (_CAPTION if self.captions else _GAP)


class Part(NamedTuple):
    """Rows under a title and a line of details."""

    title: str
    details: str
    rows: Sequence[Row]


@mpl.rc_context(_STYLE)
def draw(*parts: Part) -> Figure:
    """Draws the parts from the top down, on a figure that pyplot does not manage."""
    height = _GAP + sum(_HEADING + sum(row.height for row in part.rows) for part in parts)
    figure = Figure(figsize=(_WIDTH, height), dpi=100)
    bottom = height
    for title, details, rows in parts:
        figure.text(_LEFT / _WIDTH, (bottom - 0.3) / height, title, size=12, weight="bold")
        figure.text(_LEFT / _WIDTH, (bottom - 0.5) / height, details, color="0.4")
        bottom -= _HEADING
        for row in rows:
            bottom -= row.height
            for column, image in enumerate(row.images):
                left = _LEFT + column * (_CELL + _GAP)
                place = np.array([left, bottom, _CELL, _CELL]) / (_WIDTH, height, _WIDTH, height)
                cell = figure.add_axes(tuple(place))
                cell.imshow(image)
                cell.set_adjustable("datalim")  # a cell stays a square, whatever the image
                cell.set_axis_off()
                cell.set_title(_fold(row.captions[column], 16, 1) if row.captions else "")
            middle = (_LEFT - 0.1) / _WIDTH, (bottom + _CELL / 2) / height
            figure.text(*middle, _fold(row.label, 13, 4), ha="right", va="center")
    return figure


def _fold(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))
