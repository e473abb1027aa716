"""FID and its relatives of two sets of images.

compare REAL FAKE --weights=WEIGHTS [--metrics=fid,sfid,kid,is,pr,dc,fid_infinity] prints the
metrics, and --json=FILE writes them.
stats IMAGES --weights=WEIGHTS --output=FILE.npz writes statistics, to be compared with later.
verify REAL FAKE --weights=FILE.pth compares our features and FID with those of pytorch-fid,
torch-fidelity and clean-fid on the same folders, where they are installed; the status is 1 if they
differ.

REAL, FAKE and IMAGES: a folder, FILE.zip, FILE.npy, FILE.npz (images arr_0, published statistics mu
and sigma, or both), tfds:NAME:SPLIT; gs://... too. WEIGHTS: "fid", FID's network, which is
downloaded once, or a file or a directory that has it (docs/fid.md).
"""

import argparse
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from inception.fid import bridge
from inception.fid.bridge import UserError, command_line
from inception.fid.extract import PRECISIONS, Extractor
from inception.fid.files import Summary, check_output, has_images, has_statistics, load, save
from inception.fid.images import open_images
from inception.fid.metrics import (
    FEATURES_OF_FAKE,
    FEATURES_OF_REAL,
    METRICS,
    cautions,
    cautions_of_both,
    compare,
    layers_of,
)
from inception.fid.oracles import TOOLS
from inception.fid.pipeline import measure
from inception.fid.statistics import check_comparable
from inception.fid.verify import verify

DEFAULT_PROTOCOL = "tensorflow"


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
        command.add_argument("--batch_size", type=int, default=64, help="images at once")
        command.set_defaults(run=run)
    for name in ("compare", "stats"):
        _add_flags(commands.choices[name])
    _add_compare_flags(commands.choices["compare"])
    stats = commands.choices["stats"]
    stats.add_argument("--output", metavar="FILE.npz", required=True)
    stats.add_argument("--layers", default="pooled,spatial", help="(%(default)s)")
    stats.add_argument("--features", action="store_true", help="keep them: KID, IS, PR need them")
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
    add("--protocol", help=f"or a tool's name ({DEFAULT_PROTOCOL}, or what a file says)")
    add("--precision", default="highest", choices=PRECISIONS, help="(%(default)s)")
    add("--num", type=int, default=0, help="images to draw; 0 for all")
    add("--seed", type=int, default=0, help="of the draw")
    add("--recursive", action="store_true", help="images in subfolders too")
    add("--data_dir", default="", help="where tfds data sets are")


def _add_compare_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--metrics", default="fid", help=f"of {','.join(METRICS)} (%(default)s)")
    add("--layer", default="pooled", help="of FID, KID, PR and DC (%(default)s)")
    add("--subset_size", type=int, default=1000, help="of KID (%(default)s)")
    add("--k", type=int, default=3, help="neighbor of precision and recall (%(default)s)")
    add("--splits", type=int, default=10, help="of the Inception Score (%(default)s)")
    add("--block", type=int, default=0, help="images of its parts instead; ADM's are 5000")
    add("--json", metavar="FILE", help="writes the result")


def _compare(args: argparse.Namespace) -> None:
    """Metrics of two sets."""
    metrics = args.metrics.split(",")
    if unknown := [name for name in metrics if name not in METRICS]:
        raise UserError(f"metric {unknown[0]!r} is unknown; it is one of {', '.join(METRICS)}")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f"--json={args.json}: there is no folder {Path(args.json).parent}")
    layers = layers_of(metrics, args.layer)
    sides = _Sides(args, tuple(layers))
    real_layers = [name for name in layers if name != "logits"]
    keep_real = [name for name, of in layers.items() if of & FEATURES_OF_REAL]
    keep_fake = [name for name, of in layers.items() if of & FEATURES_OF_FAKE]
    moments_fake = [name for name, of in layers.items() if of - {"is", "kid", "pr", "dc"}]
    real = sides.summary(args.real, real_layers, keep_real)
    fake = sides.summary(args.fake, moments_fake, keep_fake)
    found = compare(
        real,
        fake,
        metrics,
        layer=args.layer,
        subset_size=args.subset_size,
        k=args.k,
        splits=args.splits,
        block=args.block,
        seed=args.seed,
    )
    notes = [*cautions_of_both(real, fake), *sides.cautions()]
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
    """Writes statistics."""
    check_output(args.output)
    layers = [*args.layers.split(","), *(["logits"] if args.features else [])]
    sides = _Sides(args, layers)
    summary = sides.measure(args.images, layers if args.features else [])
    save(args.output, summary, features=args.features)
    for note in [*cautions(summary), *sides.cautions()]:
        logging.warning(note)
    print(
        f"{args.output}: {', '.join(summary.statistics)} of {_images(summary)}, protocol "
        f"{summary.origin.protocol}"
    )


def _verify(args: argparse.Namespace) -> int:
    """Compares with other tools."""
    tools = args.against.split(",")
    if args.against == ",".join(TOOLS):  # by default, those that are installed
        tools = [name for name in TOOLS if importlib.util.find_spec(TOOLS[name][0])]
    if not tools:
        raise UserError("no tool is installed: pip install -r requirements-oracles.txt")
    agreements = [verify(args.real, args.fake, args.weights, x, args.batch_size) for x in tools]
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


class _Sides:
    """Makes the summaries of paths, with one network that is loaded when the first needs it."""

    def __init__(self, args: argparse.Namespace, layers: Sequence[str]):
        self._args, self._layers = args, layers
        paths = [getattr(args, name) for name in ("real", "fake") if hasattr(args, name)]
        self._saved = {path: load(path, args.protocol) for path in paths if has_statistics(path)}
        said = [summary.origin.protocol for summary in self._saved.values()]
        self._protocol = args.protocol or next(iter(said), DEFAULT_PROTOCOL)
        self._extract: Extractor | None = None

    def summary(self, path: str, moments: Sequence[str], features: Sequence[str]) -> Summary:
        """Of a path, with moments and features of these layers where they can be had."""
        saved = self._saved.get(path)
        if saved is None:
            return self.measure(path, features)
        lacking = set(moments) - set(saved.statistics) | set(features) - set(saved.features)
        if not lacking or not has_images(path):
            return saved
        # ADM's references: published moments of all images, and some of the images.
        measured = self.measure(path, features)
        return replace(
            saved,
            statistics=measured.statistics | saved.statistics,
            features=measured.features | saved.features,
        )

    def measure(self, path: str, keep: Sequence[str]) -> Summary:
        """Of the images of a path."""
        args = self._args
        images = open_images(path, recursive=args.recursive, data_dir=args.data_dir)
        return measure(
            images,
            self.extract,
            keep=keep,
            batch_size=args.batch_size,
            num=args.num,
            seed=args.seed,
        )

    @property
    def extract(self) -> Extractor:
        """The network, for all layers."""
        if self._extract is None:
            args = self._args
            if not args.weights:
                raise UserError("images need --weights, such as --weights=fid (docs/fid.md)")
            self._extract = Extractor(
                args.weights, self._protocol, self._layers, precision=args.precision
            )
            for saved in self._saved.values():  # before hours of work
                check_comparable(saved.origin, self._extract.origin(""))
        return self._extract

    def cautions(self) -> list[str]:
        """What to know of the network."""
        if self._extract is None or bridge.is_fids(self._extract.settings.model):
            return []
        return [
            f"{self._args.weights} is not FID's network (1008 outputs): the numbers compare with "
            "others of the same weights only"
        ]


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
