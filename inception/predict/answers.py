"""Answers: the most probable classes of images, as data and as a table."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from tabulate import tabulate

from inception.data.decode import MAX_PIXELS
from inception.data.folder import printable
from inception.predict.files import outputs
from inception.predict.predictor import Predictor, has_answer


class Answer(NamedTuple):
    """The most probable classes of an image, the first one first."""

    file: str
    classes: list[str]
    probabilities: list[float]


def find_answers(
    predictor: Predictor,
    labels: Sequence[str],
    files: Sequence[str],
    topk: int = 5,
    *,
    activation: str = "softmax",
    max_pixels: int = MAX_PIXELS,
) -> list[Answer]:
    """The answers for all files that have one, in order; the others are reported.

    A file has none if it cannot be read or the network's logits are not finite.

    Args:
      predictor: The network.
      labels: Names of the classes, or ().
      files: Paths of images.
      topk: Number of classes in an answer; at most all classes.
      activation: "softmax" or "sigmoid", which turns logits into probabilities.
      max_pixels: Largest number of pixels of an image as it is stored.
    """
    answers = []
    probability_of = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[activation]
    for batch, values in outputs(predictor, files, max_pixels):
        probabilities = np.asarray(probability_of(values["logits"]))
        best = np.argsort(-probabilities, kind="stable")[:, :topk]
        answered = np.asarray(has_answer(values["logits"]))
        for file, numbers, row, finite in zip(batch, best, probabilities, answered, strict=True):
            if not finite:
                print(f"error: {file}: the network's logits are not finite", file=sys.stderr)
                continue
            classes = [printable(labels[n]) if labels else f"class {n}" for n in numbers]
            answers.append(Answer(file, classes, row[numbers].tolist()))
    return answers


def table(answers: Sequence[Answer]) -> str:
    """A table with one line per class of each image."""
    rows = [
        (printable(answer.file) if rank == 0 else "", name, f"{probability:.2%}")
        for answer in answers
        for rank, (name, probability) in enumerate(
            zip(answer.classes, answer.probabilities, strict=True)
        )
    ]
    headers, align = ("image", "class", "probability"), ("left", "left", "right")
    return tabulate(rows, headers, "plain", colalign=align, disable_numparse=True)
