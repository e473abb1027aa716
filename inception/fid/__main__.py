"""FID and other metrics of two sets of images.

compare REAL FAKE --weights=WEIGHTS [--metrics=fid,sfid,kid,is,pr,dc,fid_infinity] prints the
metrics; --json=FILE also writes them to a file.
stats IMAGES --weights=WEIGHTS --output=FILE.npz writes the statistics of one set, which `compare`
takes in place of its images.
verify REAL FAKE --weights=fid|FILE.pth compares features and FID with those of pytorch-fid,
torch-fidelity and clean-fid on the same folders, where they are installed; the exit status is 1 if
they differ.

REAL, FAKE and IMAGES are a folder, FILE.zip, FILE.npy, FILE.npz (images in arr_0, published
statistics mu and sigma, or both) or tfds:NAME:SPLIT; the first four may be in a bucket (gs://...).
WEIGHTS is "fid", FID's network, which is downloaded once, or a file or directory (docs/fid.md).
"""

import argparse
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from inception.fid import bridge
from inception.fid.bridge import UserError, command_line
from inception.fid.extract import PRECISIONS
from inception.fid.files import Summary, check_output, save
from inception.fid.images import open_images
from inception.fid.metrics import (
    METRICS,
    cautions,
    cautions_of_both,
    check_counts,
    check_names,
    compare,
    needs_of_fake,
    needs_of_real,
)
from inception.fid.oracles import TOOLS
from inception.fid.pipeline import count_of
from inception.fid.sides import (
    DEFAULT_PROTOCOL,
    Side,
    cautions_of_network,
    open_network,
    open_side,
    summary_of,
)
from inception.fid.verify import verify


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs a subcommand."""
    parser = command_line.parser("python -m inception.fid", __doc__)
    commands = parser.add_subparsers(required=True, metavar="compare | stats | verify")
    for name, run, paths in (
        ("compare", _compare, ("real", "fake")),
        ("stats", _stats, ("images",)),
        ("verify", _verify, ("real", "fake")),
    ):
        command = commands.add_parser(name, help=run.__doc__)
        for path in paths:
            command.add_argument(path, metavar=path.upper())
        command.add_argument("--weights", metavar="WEIGHTS", required=name != "compare")
        command.add_argument(
            "--batch_size", type=int, default=64, help="images in a batch (%(default)s)"
        )
        command.set_defaults(run=run)
    for name in ("compare", "stats"):
        _add_flags(commands.choices[name])
    _add_compare_flags(commands.choices["compare"])
    stats = commands.choices["stats"]
    stats.add_argument("--output", metavar="FILE.npz", required=True)
    stats.add_argument("--layers", default="pooled,spatial", help="(%(default)s)")
    stats.add_argument(
        "--features", action="store_true", help="also write features, which KID, IS and PR need"
    )
    against = ",".join(TOOLS)
    commands.choices["verify"].add_argument("--against", default=against, help="(%(default)s)")
    args, _ = command_line.parse(parser, argv)
    for name in ("batch_size", "subset_size", "splits", "k"):
        if getattr(args, name, 1) < 1:
            parser.error(f"--{name} must be at least 1")
    for name in ("num", "block"):
        if getattr(args, name, 0) < 0:
            parser.error(f"--{name} must not be negative")
    return args.run(args)


def _add_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--protocol",
        help=f"protocol or tool (what a file of statistics says, else {DEFAULT_PROTOCOL})",
    )
    add("--precision", default="highest", choices=PRECISIONS, help="of products (%(default)s)")
    add("--num", type=int, default=0, help="number of images to draw; 0 for all")
    add("--seed", type=int, default=0, help="seed of the draw (%(default)s)")
    add("--recursive", action="store_true", help="include images in subfolders")
    add("--data_dir", default="", help="directory of tfds data sets")


def _add_compare_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--metrics", default="fid", help=f"some of {','.join(METRICS)} (%(default)s)")
    add("--layer", default="pooled", help="layer of FID, KID, PR and DC (%(default)s)")
    add("--subset_size", type=int, default=1000, help="images in a subset of KID (%(default)s)")
    add("--k", type=int, default=3, help="neighbor of precision and recall (%(default)s)")
    add("--splits", type=int, default=10, help="parts of the Inception Score (%(default)s)")
    add("--block", type=int, default=0, help="images in a part instead; ADM's is 5000")
    add("--json", metavar="FILE", type=bridge.local_path, help="also writes the result there")


def _compare(args: argparse.Namespace) -> None:
    """Computes metrics of two sets."""
    metrics = args.metrics.split(",")
    check_names(metrics)
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise UserError(f"--json={args.json} must be a file in a folder that exists")
    needs = needs_of_real(metrics, args.layer), needs_of_fake(metrics, args.layer)
    sides = [
        open_side(path, each, args)
        for path, each in zip((args.real, args.fake), needs, strict=True)
    ]
    how: dict[str, Any] = {"subset_size": args.subset_size, "k": args.k}
    splits = 1 if args.block else args.splits
    check_counts(sides[0].count, sides[1].count, metrics, splits=splits, **how)
    layers = [layer for each in needs for kind in each for layer in kind]
    extract = open_network(sides, layers or [args.layer], args)
    real, fake = (summary_of(side, extract, args) for side in sides)
    how |= {"layer": args.layer, "splits": args.splits, "block": args.block, "seed": args.seed}
    found = compare(real, fake, metrics, **how)
    notes = [*cautions_of_both(real, fake), *cautions_of_network(extract, args.weights)]
    for note in notes:
        logging.warning(note)
    origin = fake.origin if fake.origin.weights else real.origin
    rows = [(name, _text(value)) for name, value in found.items()]
    print(tabulate(rows, tablefmt="plain", disable_numparse=True))
    print(f"protocol {origin.protocol}, {_images(real)} against {_images(fake)}")
    if args.json:
        result = found | {
            "real": _described(real),
            "fake": _described(fake),
            "protocol": origin.protocol,
            "layer": args.layer,
            "weights_sha256": origin.weights or None,
            "arithmetic": origin.precision or None,
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "pillow")},
            "warnings": notes,
        }
        bridge.write_text(args.json, bridge.as_json(result, indent=2) + "\n")


def _stats(args: argparse.Namespace) -> None:
    """Writes the statistics of a set into a file."""
    check_output(args.output)
    layers = args.layers.split(",")
    keep = [*layers, "logits"] if args.features else []
    images = open_images(args.images, recursive=args.recursive, data_dir=args.data_dir)
    side = Side(None, images, count_of(images, args.num), keep)
    extract = open_network([side], keep or layers, args)
    summary = summary_of(side, extract, args)
    save(args.output, summary, features=args.features)
    for note in [*cautions(summary), *cautions_of_network(extract, args.weights)]:
        logging.warning(note)
    print(
        f"{args.output}: {', '.join(summary.statistics)} of {_images(summary)}, protocol "
        f"{summary.origin.protocol}"
    )


def _verify(args: argparse.Namespace) -> int:
    """Compares features and FID with other tools'."""
    tools = args.against.split(",")
    if args.against == ",".join(TOOLS):  # by default, those that are installed
        tools = [name for name in TOOLS if importlib.util.find_spec(TOOLS[name][0])]
    if not tools:
        raise UserError("no tool is installed: pip install -r requirements-oracles.txt")
    weights = bridge.weights_file(args.weights)
    agreements = [verify(args.real, args.fake, weights, tool, args.batch_size) for tool in tools]
    rows = [
        (
            each.tool,
            max(each.differences.values()),
            each.ours,
            each.theirs,
            each.printed,
            "equal" if each.is_close else "DIFFERENT",
        )
        for each in agreements
    ]
    headers = ("tool", "features differ by", "FID", "of its features", "it prints", "")
    print(tabulate(rows, headers, "plain", floatfmt=("", ".1e", ".7g", ".7g", ".7g")))
    return 0 if all(each.is_close for each in agreements) else 1


def _images(summary: Summary) -> str:
    count = f"{summary.count:,}" if summary.count else "unknown number of"
    return f"{count} images of {summary.path}"


def _described(summary: Summary) -> dict[str, Any]:
    return {
        "path": summary.path,
        "images": summary.count or None,
        "formats": [name for name in summary.formats if name],
        "sizes": len(summary.sizes) or None,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['mean']:.7g} +- {value['std']:.2g}"
    return f"{value:.7g}"


if __name__ == "__main__":
    sys.exit(command_line.run(main))
