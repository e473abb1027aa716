"""A picture of what a config feeds to the network, to look at before a long run.

    python -m inception.show --config=configs/v3.py [--config.FIELD=VALUE ...] [--output=FILE]

Above: some training images, one a row, as they are stored and as several epochs see them, cropped
and augmented. Below: evaluation images as the network sees them, with their classes.

The images are spread evenly over the split (a folder is sorted by class). They go through the same
stream and augmentation as in a run, as a small data set of their own: what is drawn for an image is
drawn from the same distributions, but is not what a run with this seed draws for it.
"""

import argparse
import textwrap
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from inception import augment
from inception.config import load, parse_args
from inception.data.decode import decode
from inception.data.folder import printable
from inception.data.sources import Source, open_source
from inception.data.stream import eval_stream, train_stream

ROWS = 4  # training images
COLUMNS = 6  # the stored image and five epochs; below, evaluation crops

_CELL, _GAP = 1.05, 0.06  # of the picture: inches, at 100 pixels each
_LEFT, _HEADING, _CAPTION = 1.1, 0.6, 0.2
_GREY = "0.4"


class Row(NamedTuple):
    """One line of the picture."""

    label: str  # names of the class or classes
    images: Sequence[np.ndarray]  # [height, width, 3], uint8 or float in [0, 1]


class Few:
    """A `Source` of `count` examples, evenly spread over another source."""

    def __init__(self, source: Source, count: int):
        self._source = source
        self._chosen = np.unique(np.linspace(0, len(source) - 1, count).astype(int)).tolist()
        self.num_classes = source.num_classes
        self.class_names = source.class_names
        self.label_width = source.label_width

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[bytes | np.ndarray, int | np.ndarray]:
        return self._source[self._chosen[index]]

    def describe(self, index: int) -> str:
        """Returns what the other source calls the example."""
        return self._source.describe(self._chosen[index])

    def file_name(self, index: int) -> str:
        """Returns what the example's file was called."""
        return self._source.file_name(self._chosen[index])


def training_rows(config: ConfigDict, source: Source) -> list[Row]:
    """Returns a row for each of a few examples: as stored, then augmented in epoch 0, 1, ...

    Args:
      config: of the run.
      source: the training split.

    Raises:
      ValueError: for data that cannot be read, as `train_stream` does.
    """
    few = Few(source, ROWS)
    config = config.copy_and_resolve_references()
    config.batch_size = len(few)  # a batch is an epoch, and holds every example
    config.on_bad_record = "fail"  # a substitute would be shown twice
    epochs = []
    for batch in islice(train_stream(config, few), COLUMNS - 1):
        keys = augment.keys(config.seed, batch["epoch"], batch["example"])
        images = augment.augment(keys, batch["image"], config.augmentation)
        epochs.append(np.asarray(images)[np.argsort(batch["example"])])
    rows = []
    for index, images in enumerate(np.stack(epochs, axis=1)):
        stored, label = few[index]
        rows.append(Row(_name(source, label), [decode(stored), *(images + 1) / 2]))
    return rows


def evaluation_rows(config: ConfigDict, source: Source) -> list[Row]:
    """Returns a row for each of a few examples: its crops, or some of them where there are many.

    Args:
      config: of the run.
      source: the evaluation split.

    Raises:
      ValueError: for data that cannot be read, as `eval_stream` does.
    """
    crops = config.eval.crops
    few = Few(source, 2 * COLUMNS if crops == 1 else 2)
    config = config.copy_and_resolve_references()
    config.eval.batch_size = len(few) * crops
    batch = next(eval_stream(config, few))
    shown = np.unique(np.linspace(0, crops - 1, COLUMNS).astype(int))
    return [
        Row(_name(source, label), list(images[shown]))
        for label, images in zip(batch["label"], batch["image"], strict=True)
    ]


def draw(config: ConfigDict, title: str = "") -> Figure:
    """Draws the picture of a config's training and evaluation data.

    Args:
      config: of the run; its two splits are opened.
      title: what to call it, the config's file for example.

    Returns:
      A figure of its own, not pyplot's.

    Raises:
      ValueError: for data that cannot be read, and what `open_source` raises.
    """
    training = training_rows(config, open_source(config, config.split))
    evaluation = evaluation_rows(config, open_source(config, config.eval.split))
    crops = config.eval.crops
    page = _Page(len(training), len(evaluation) if crops > 1 else -(-len(evaluation) // COLUMNS))
    data = f"{config.dataset}, {{}}, {config.image_size} x {config.image_size}"
    page.heading(
        f"{title}: training" if title else "Training",
        data.format(config.split) + f", augmentation '{config.augmentation}'",
        ["stored", *(f"epoch {epoch}" for epoch in range(COLUMNS - 1))],
    )
    for row in training:
        page.line(row.images, label=row.label)
    how = (
        f"preprocessing '{config.eval.preprocessing}'"
        if crops == 1
        else f"{COLUMNS} of the {crops} crops"
    )
    page.heading("Evaluation", data.format(config.eval.split) + f", {how}", [])
    if crops > 1:
        for row in evaluation:
            page.line(row.images, label=row.label)
    else:
        for start in range(0, len(evaluation), COLUMNS):
            line = evaluation[start : start + COLUMNS]
            page.line([row.images[0] for row in line], captions=[row.label for row in line])
    return page.figure


class _Page:
    """A figure that is filled from top to bottom."""

    def __init__(self, training_lines: int, evaluation_lines: int):
        lines = training_lines + evaluation_lines
        self._width = _LEFT + COLUMNS * (_CELL + _GAP) + _GAP
        self._height = 2 * _HEADING + lines * (_CELL + _GAP) + (evaluation_lines + 1) * _CAPTION
        self.figure = Figure(figsize=(self._width, self._height), dpi=100)
        self._top = 0.0  # inches that are filled

    def heading(self, title: str, detail: str, columns: Sequence[str]) -> None:
        """Writes a title, what it is about, and the columns' names."""
        self._text(_LEFT, self._top + 0.3, title, size=12, weight="bold")
        self._text(_LEFT, self._top + 0.5, detail, size=8.5, color=_GREY)
        self._top += _HEADING + _CAPTION * bool(columns)
        for column, name in enumerate(columns):
            self._text(self._middle(column), self._top - 0.05, name, size=8, ha="center")

    def line(
        self, images: Sequence[np.ndarray], label: str = "", captions: Sequence[str] = ()
    ) -> None:
        """Draws images side by side, with a label to their left or captions below them."""
        middle = self._top + _CELL / 2
        self._text(_LEFT - 0.1, middle, _fold(label, 13, 4), size=8, ha="right", va="center")
        for column, image in enumerate(images):
            box = (
                (self._middle(column) - _CELL / 2) / self._width,
                1 - (self._top + _CELL) / self._height,
                _CELL / self._width,
                _CELL / self._height,
            )
            axes = self.figure.add_axes(box)
            axes.imshow(image)
            axes.set_axis_off()
        self._top += _CELL + _GAP
        for column, caption in enumerate(captions):
            below = self._top + 0.08
            self._text(self._middle(column), below, _fold(caption, 16, 1), size=8, ha="center")
        self._top += _CAPTION * bool(captions)

    def _middle(self, column: int) -> float:
        return _LEFT + column * (_CELL + _GAP) + _CELL / 2

    def _text(self, left: float, top: float, text: str, **style) -> None:
        x, y = left / self._width, 1 - top / self._height
        self.figure.text(x, y, text, parse_math=False, **style)


def _fold(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))


def _name(source: Source, label: int | np.ndarray) -> str:
    """Returns the class's name, or the names of an image with several labels."""
    numbers = [int(number) for number in np.atleast_1d(label) if number >= 0]
    names = source.class_names
    return ", ".join(
        printable(names[n]).replace("_", " ") if names else f"class {n}" for n in numbers
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the picture that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m inception.show",
        description="Draws augmented training images and evaluation crops.",
    )
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument("--output", default="augmented.png", help="PNG to write (%(default)s)")
    args, overrides = parse_args(parser, argv)
    try:
        figure = draw(load(args.config, overrides), title=args.config)
        figure.savefig(
            args.output,
            format="png",
            bbox_inches="tight",
            pad_inches=0.15,
            pil_kwargs={"optimize": True},
        )
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"{args.output}: look at it before you train.")


if __name__ == "__main__":
    main()
