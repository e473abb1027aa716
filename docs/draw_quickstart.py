"""Draws the picture of a finished quick start.

python -m docs.draw_quickstart runs/digits docs/images/quickstart.png
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from inception import command_line
from inception.data.paths import local_path
from inception.workdir.logbook import read_metrics


def draw(workdir: str) -> Figure:
    """Draws loss and error over the steps of the run in `workdir`."""
    lines = read_metrics(workdir)
    losses = [
        (line["step"], line["train/main_loss"]) for line in lines if "train/main_loss" in line
    ]
    errors = {
        name: [
            (line["step"], 100 * (1 - line[f"eval/{weights}_top1"]))
            for line in lines
            if f"eval/{weights}_top1" in line
        ]
        for weights, name in (("ema", "averaged weights (EMA)"), ("raw", "raw weights"))
    }
    results = json.loads((Path(workdir) / "results.json").read_text())
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
    left.plot(*zip(*losses, strict=True), color="#3b82c4")
    left.set(xlabel="step", title="training loss (label smoothing 0.1)", ylim=0)
    for name, values in errors.items():
        right.plot(*zip(*values, strict=True), marker="o", label=name)
    right.set(xlabel="step", title="top-1 error on 360 held-out digits, %", ylim=0)
    right.legend(frameon=False, title=f"at the end: {100 * results['ema']['top1']:.2f} % right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the picture that the command line asks for."""
    parser = command_line.parser("python -m docs.draw_quickstart", __doc__)
    parser.add_argument("workdir", metavar="WORKDIR")
    parser.add_argument("output", metavar="FILE.png", type=local_path)
    args, _ = command_line.parse(parser, argv)
    draw(args.workdir).savefig(args.output)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
