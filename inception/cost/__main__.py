"""What a network costs: parameters, multiply-adds and activations of every stage.

    python -m inception.cost --config=configs/v3.py [--config=... more] [--config.FIELD=VALUE ...]
        [--num_classes=1000] [--plot=architecture.png]

Prints a table for each config, the paper's figure below it, and with several configs a last table
that compares them. --plot draws the architecture of the first. What is counted, and how, is said in
counting.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from inception.config import load, parse_args
from inception.cost.counting import Cost, Stage, cost, format_shape
from inception.errors import UserError
from inception.paper import COSTS, CostClaim


def claim(path: str, config: ConfigDict) -> CostClaim | None:
    """What the paper says about a config file's network, unless `config` has changed it."""
    original = load(path)
    same = (config.model, config.image_size) == (original.model, original.image_size)
    return COSTS.get(Path(path).stem) if same else None


def table(counted: Cost) -> str:
    """One line a stage, then the sums without and with the side head."""
    rows: list[tuple[str, ...]] = [
        ("stage", "layer", "output", "parameters", "multiply-adds", "activations")
    ]
    rows += [
        _row(stage, stage.name, stage.kind, format_shape(*stage.shape)) for stage in counted.stages
    ]
    rows += [_row(counted, "total")]
    if head := counted.side_head:
        rows += [_row(head, head.name, head.kind, format_shape(*head.shape))]
        rows += [_row(counted.with_side_head, "total with side head")]
    return _align(rows, left=2)


def _row(counted: Stage | Cost, *names: str) -> tuple[str, ...]:
    return (
        *(*names, "", "")[:3],
        f"{counted.parameters:,}",
        f"{counted.multiply_adds / 1e6:,.1f} M",
        f"{counted.activation_bytes / 1e6:.2f} MB",
    )


def comparison(counted: dict[str, Cost], paper: dict[str, str]) -> str:
    """One line a config: parameters, multiply-adds, their ratio to the first, the paper's figure.

    Args:
      counted: costs by the config's name; the side head is left out.
      paper: the paper's multiply-adds by the config's name, where there are any.
    """
    first = next(iter(counted.values())).multiply_adds
    rows = [("config", "parameters", "multiply-adds", "ratio", "paper")]
    for name, one in counted.items():
        giga, ratio = f"{one.multiply_adds / 1e9:.3f} G", f"{one.multiply_adds / first:.3f}"
        rows.append((name, f"{one.parameters:,}", giga, ratio, paper.get(name, "-")))
    return _align(rows, left=1)


def _align(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns of text, the first `left` aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = "<" * left + ">" * (len(widths) - left)
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True))
    return "\n".join(line.format(*row).rstrip() for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables that the command line asks for, and draws the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m inception.cost",
        description="Counts the parameters, multiply-adds and activations of a config's network.",
    )
    parser.add_argument("--config", required=True, action="append", help="a file; may be repeated")
    parser.add_argument("--num_classes", type=int, default=1000, help="logits (%(default)s)")
    parser.add_argument("--plot", metavar="FILE.png", help="draws the first config's architecture")
    args, overrides = parse_args(parser, argv)
    try:
        _report(args.config, overrides, args.num_classes, args.plot)
    except (OSError, UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(
    paths: Sequence[str], overrides: Sequence[str], num_classes: int, plot: str | None
) -> None:
    counted, paper = {}, {}
    for path in paths:
        config, name = load(path, overrides), Path(path).stem
        counted[name] = cost(config, num_classes)
        print(f"{path}: {format_shape(*counted[name].image)}, {config.dtype}\n")
        print(table(counted[name]) + "\n")
        if said := claim(path, config):
            paper[name] = said.multiply_adds
            print(said.remark + "\n")
        if plot and path == paths[0]:
            from inception.cost import diagram  # matplotlib takes a second and serves only this

            diagram.save(diagram.draw(counted[name], name), plot)
            print(f"{plot}: the architecture of {name}\n")
    if len(paths) > 1:
        print(comparison(counted, paper))


if __name__ == "__main__":
    sys.exit(main())
