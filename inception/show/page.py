"""The picture: training images above, evaluation below."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure, SubFigure

from inception.show.images import COLUMNS, Views

# Inches, at 100 pixels each.
_CELL, _GAP, _CAPTION = 1.05, 0.06, 0.26
_LEFT, _HEADING = 1.1, 0.8
_WIDTH = _LEFT + COLUMNS * (_CELL + _GAP)
# A dollar in a class's name is no mathematics.
_STYLE: Any = {"font.size": 8, "axes.titlesize": 8, "axes.titlepad": 4, "text.parse_math": False}


@mpl.rc_context(_STYLE)
def draw(
    training: Sequence[Views], evaluation: Sequence[Views], headings: Sequence[tuple[str, str]]
) -> Figure:
    """Draws a row per training example; and per evaluation example if it has several crops.

    Args:
      training: the stored image of each, then COLUMNS - 1 augmented ones.
      evaluation: one crop of each, or several.
      headings: of the two parts, a title and a line below it.

    Returns:
      A figure of its own, not pyplot's.
    """
    several = len(evaluation[0].images) > 1
    rows = len(training), len(evaluation) if several else -(-len(evaluation) // COLUMNS)
    gaps = _GAP, _GAP if several else _CAPTION
    heights = [_HEADING + n * (_CELL + gap) for n, gap in zip(rows, gaps, strict=True)]
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=100)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights, hspace=0)
    above, below = map(_grid, parts, heights, rows, gaps, headings)
    _fill_rows(above, training)
    for column, name in enumerate(["stored", *(f"epoch {e}" for e in range(COLUMNS - 1))]):
        above[0, column].set_title(name)
    if several:
        _fill_rows(below, evaluation)
    else:
        for cell, views in zip(below.flat, evaluation, strict=False):
            _show(cell, views.images[0])
            cell.set_title(_fold(views.label, 16, 1), y=-0.18)
    return figure


def _grid(
    part: SubFigure, height: float, rows: int, gap: float, heading: tuple[str, str]
) -> np.ndarray:
    """Returns the empty cells of a part of the picture, [rows, COLUMNS], under its heading."""
    left, top = _LEFT / _WIDTH, 1 - _HEADING / height
    part.text(left, 1 - 0.3 / height, heading[0], size=12, weight="bold")
    part.text(left, 1 - 0.5 / height, heading[1], color="0.4")
    cells = part.subplots(rows, COLUMNS, squeeze=False)
    part.subplots_adjust(left, gap / height, 1 - _GAP / _WIDTH, top, _GAP / _CELL, gap / _CELL)
    for cell in cells.flat:
        cell.set_axis_off()
    return cells


def _fill_rows(cells: np.ndarray, examples: Sequence[Views]) -> None:
    for row, views in zip(cells, examples, strict=True):
        label = _fold(views.label, 13, 4)
        row[0].text(-0.1, 0.5, label, ha="right", va="center", transform=row[0].transAxes)
        for cell, image in zip(row, views.images, strict=False):
            _show(cell, image)


def _show(cell, image: np.ndarray) -> None:
    cell.imshow(image)
    cell.set_adjustable("datalim")  # a cell stays a square, whatever the image


def _fold(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))
