"""The plot of an evaluation's confusion matrix, for up to 50 classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from inception.data.folder import printable

_MAX_NUMBERED = 20  # classes up to which the counts are written into the cells
_GAMMA = 0.4  # of the colors: errors are small fractions, and are what one looks for


def draw(results: dict, class_names: Sequence[str] = ()) -> Figure:
    """Draws how often images of a class (row) were predicted as another (column).

    Colors show the fraction of a row.

    Args:
      results: Results of `evaluate.Evaluator` with "confusion"; the EMA weights' are drawn.
      class_names: Names of the classes; () for numbers.
    """
    counts = np.array(results["ema"]["confusion"])
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = [printable(name) for name in class_names] or list(map(str, range(len(counts))))
    side = 2.6 + 0.28 * max(10, len(names))
    axes = Figure(figsize=(side, side), layout="constrained").subplots()
    display = ConfusionMatrixDisplay(fractions**_GAMMA, display_labels=names).plot(
        ax=axes,
        cmap="Blues",
        colorbar=False,
        include_values=len(names) <= _MAX_NUMBERED,
        xticks_rotation=90 if max(map(len, names)) > 2 else 0,
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"size": 8},
    )
    for text, count in zip(axes.texts, counts.flat, strict=False):
        text.set_text(str(count) if count else "")
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a class may be called $
    axes.tick_params(length=0, labelsize=9)
    axes.set_title(
        f"{results['split']}, {results['examples']:,} images: top-1 {results['ema']['top1']:.2%}",
        loc="left",
        size=10,
    )
    return display.figure_
