"""The plot of a network's calibration: its confidence, and its accuracy at each confidence."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from inception.evaluation.metrics import CALIBRATION_BINS, add, count, summarize


def draw(logits: Mapping[str, ArrayLike], labels: Sequence[int]) -> Figure:
    """Draws the calibration of networks on the same images.

    Left, how many images have a confidence (probability of the predicted class) in each of the bins
    that the calibration error is computed with; right, the accuracy on the images of each bin. The
    better the calibration, the closer the dots are to the diagonal.

    Args:
      logits: Logits [n, classes] of each network, by its name in the legend.
      labels: True classes [n].

    Returns:
      A figure that pyplot does not manage.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    images, accuracy = figure.subplots(1, 2)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    accuracy.plot([0, 1], [0, 1], color="0.7", lw=1)
    for name, values in logits.items():
        rows = jnp.asarray(labels, jnp.int32)
        log_p, all_rows = jax.nn.log_softmax(jnp.asarray(values)), jnp.ones(len(rows), bool)
        sums = count(log_p, rows, all_rows, jnp.arange(len(rows)))
        total = add({}, sums)
        found, number = summarize(total), total["bin_examples"]
        seen = number > 0
        text = f"{name}: confidence {found['confidence']:.1%}, accuracy {found['top1']:.1%}"
        images.stairs(number, edges, label=text, lw=1.8)
        means = [total[key][seen] / number[seen] for key in ("bin_confidence", "bin_correct")]
        ece = f"{name}: calibration error {found['ece']:.1%}"
        accuracy.plot(*means, "o-", ms=4, label=ece)
    images.set(title="images by confidence", xlabel="confidence", ylabel="images")
    accuracy.set(title="accuracy by confidence", xlabel="confidence", ylabel="accuracy")
    for axes in (images, accuracy):
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
    images.margins(y=0.35)
    return figure
