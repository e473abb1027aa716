"""A picture of answers: every image next to its most probable classes as bars."""

import textwrap
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inception.data.decode import MAX_PIXELS, decode, read_file
from inception.data.folder import printable
from inception.predict.answers import Answer

_MAX_SIDE = 400  # pixels of a drawn image
# A dollar in a class's name does not mean mathematics.
_STYLE: Any = {"font.size": 9, "axes.titlesize": 9, "text.parse_math": False}


@mpl.rc_context(_STYLE)
def draw(answers: Sequence[Answer], max_pixels: int = MAX_PIXELS) -> Figure:
    """Draws a row per answer. The images are read again, hence `max_pixels`.

    Returns:
      A figure that pyplot does not manage.
    """
    height = 0.9 + 0.2 * max(len(answer.classes) for answer in answers)
    figure = Figure(figsize=(8, height * len(answers)), dpi=100, layout="constrained")
    cells: Any = figure.subplots(len(answers), 2, squeeze=False, width_ratios=(1, 2))
    for (image, bars), answer in zip(cells, answers, strict=True):
        _show_image(image, answer.file, max_pixels)
        _show_bars(bars, answer)
    return figure


def _show_image(axes: Axes, file: str, max_pixels: int) -> None:
    pixels = decode(read_file(file), max_pixels=max_pixels)
    step = -(-max(pixels.shape) // _MAX_SIDE)
    axes.imshow(pixels[::step, ::step])
    axes.set_axis_off()
    axes.set_title(textwrap.shorten(printable(PurePath(file).name), 30, placeholder=" ..."))


def _show_bars(axes: Axes, answer: Answer) -> None:
    names = [textwrap.shorten(name, 30, placeholder=" ...") for name in answer.classes]
    rows = range(len(names))
    bars = axes.barh(rows, answer.probabilities, color="tab:blue")
    axes.bar_label(bars, [f"{p:.1%}" for p in answer.probabilities], padding=3)
    axes.set_yticks(rows, names)
    axes.set_xlim(0, 1.15)  # room for the numbers
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
