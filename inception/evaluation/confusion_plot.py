"""The picture of an evaluation's confusion matrix, for up to 50 classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from inception.data.folder import printable

_NUMBERED = 20  # classes up to which the counts are written into the cells


def draw(results: dict, class_names: Sequence[str] = ()) -> Figure:
    """Draws how often images of a class (row) were taken for another (column).

    Colours are fractions of a row, with small ones spread out, since what matters is the errors.

    Args:
      results: of `evaluate.Evaluator`, with "confusion"; the EMA weights' are drawn.
      class_names: () for numbers.
    """
    counts = np.array(results["ema"]["confusion"])
    names = [printable(name) for name in class_names] or list(map(str, range(len(counts))))
    side = 2.6 + 0.28 * max(10, len(names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(fractions, cmap="Blues", norm=PowerNorm(0.4, 0, 1))
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="taken for", ylabel="true class")
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a folder may be called $
    axes.tick_params(length=0, labelsize=9)
    axes.set_title(
        f"{results['split']}, {results['examples']:,} images: top-1 {results['ema']['top1']:.2%}",
        loc="left",
        size=10,
    )
    if len(names) <= _NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if fractions[row, column] > 0.3 else "black"
                axes.text(column, row, str(count), ha="center", va="center", size=8, color=colour)
    return figure
