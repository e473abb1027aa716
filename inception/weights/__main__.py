"""Anyone's Inception-v3 weights: list, download, import, verify, export and publish them.

list shows the published weights that have a name: size, accuracy, crop, license, and whether they
are on this machine. download NAME gets them; where NAME says where they are, with status 1 if they
are not here. Everywhere a FILE or WEIGHTS is named, NAME will do, and so will
hf-hub:USER/REPO[@REVISION] and https://HOST/FILE#sha256=DIGEST.

import SOURCE FILE --output=DIRECTORY reads a file of weights and writes a directory that
inception.load_pretrained and the other commands take.
verify SOURCE FILE compares our network with the library that the file comes from, where that is
installed, endpoint by endpoint; the status is 1 if they differ.

SOURCE is auto, torchvision, timm (timm.tf_in1k, timm.tf_adv_in1k, timm.tv_in1k, timm.gluon_in1k),
keras, slim, tensorflow-inception or fid. FILE may be a folder of Hugging Face's: config.json and
model.safetensors. What a file does not state about its input and head is assumed from SOURCE, and
import prints the origin of each value. Flags such as --image_size take precedence over both.

export FORMAT WEIGHTS --output=PATH writes imported weights, or those of a run's workdir or of
WORKDIR/checkpoints/STEP, and verifies what it wrote. FORMAT is torchvision, timm (.pth, or
.safetensors), keras (.weights.h5, .h5 or .keras) or safetensors (a directory as import writes it);
or a program with the weights inside: stablehlo, savedmodel (a directory) or onnx.
publish RUN --output=DIR writes a folder for others: weights, labels, a model card, and the files of
timm or Keras; --push=USER/REPO uploads it to Hugging Face's hub.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax

from inception import command_line, weights
from inception.data.paths import local_path
from inception.data.preprocessing import INTERPOLATIONS, METHODS, Preprocessing
from inception.errors import UserError
from inception.weights import catalog, locate, publish, verify
from inception.weights.description import ACTIVATIONS
from inception.weights.export import FORMATS, export
from inception.weights.export.foreign import PADDINGS


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs a subcommand."""
    parser = command_line.parser("python -m inception.weights", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    catalog.add(commands)
    for name, run in (("import", _import), ("verify", _verify)):
        command = commands.add_parser(name, help=run.__doc__)
        command.add_argument("source", metavar="SOURCE")
        command.add_argument("file", metavar="FILE")
        command.add_argument("--raw", action="store_true", help="not the running averages")
        command.add_argument("--background", action="store_true", help="keep class 0 of 1001")
        command.add_argument(
            "--labels", metavar="FILE", type=local_path, help="class names, one per line"
        )
        _add_preprocessing(command)
        command.set_defaults(run=run)
    commands.choices["import"].add_argument(
        "--output", metavar="DIRECTORY", required=True, type=local_path
    )
    _add_export(commands)
    publish.add(commands)
    args, _ = command_line.parse(parser, argv)
    return args.run(args)


def _add_preprocessing(command: argparse.ArgumentParser) -> None:
    """Adds flags for the fields of `Preprocessing` and the activation."""
    group = command.add_argument_group("take precedence over what the file states")
    group.add_argument("--image_size", type=int, metavar="PIXELS")
    group.add_argument("--method", choices=METHODS)
    group.add_argument("--crop_fraction", type=float, metavar="FRACTION")
    group.add_argument("--interpolation", choices=INTERPOLATIONS)
    for name in ("mean", "std"):
        group.add_argument(f"--{name}", type=_three, metavar="R,G,B", help="for pixels in [0, 1]")
    group.add_argument(
        "--activation", choices=ACTIVATIONS, default="", help="applied to the logits"
    )


def _three(text: str) -> tuple[float, ...]:
    """Three numbers for red, green and blue, or one for all."""
    numbers = tuple(map(float, text.split(",")))
    return numbers * 3 if len(numbers) == 1 else numbers


def _add_export(commands: Any) -> None:
    command = commands.add_parser("export", help=_export.__doc__)
    command.add_argument("format", choices=FORMATS, metavar="FORMAT")
    command.add_argument("weights", metavar="WEIGHTS")
    command.add_argument("--output", metavar="PATH", required=True, type=local_path)
    command.add_argument(
        "--raw",
        action="store_true",
        help="for a run: use the parameters, not their running averages",
    )
    command.add_argument(
        "--preprocessing",
        action="store_true",
        help="for a program: take uint8 images and scale them inside",
    )
    command.add_argument(
        "--padding",
        choices=PADDINGS,
        default="",
        help="for torchvision and timm, of a network that does not count it in average pools",
    )
    command.set_defaults(run=_export)


def _import(args: argparse.Namespace) -> None:
    """Read a file, write a directory."""
    with locate.file_of(args.file, args.source) as (path, source):
        pretrained = _read(args, path, source)
    weights.save(args.output, pretrained)
    print(summary(pretrained))
    if source == "auto" and pretrained.source == "torchvision":
        print("note: timm's .pth has the same tensors; if it is timm's, name the source")
    print(f"written to {args.output}")


def _verify(args: argparse.Namespace) -> int:
    """Compare with the original library."""
    with locate.file_of(args.file, args.source) as (path, source):
        pretrained = _read(args, path, source)
        differences = verify.verify(pretrained, path, ema=not args.raw)
    print(verify.table(differences))
    worst = max(differences, key=lambda difference: difference.relative)
    same = worst.relative <= verify.TOLERANCE
    print(
        f"{'the same' if same else 'DIFFERENT'}: {worst.relative:.1e} at {worst.endpoint}, "
        f"{verify.TOLERANCE:.0e} allowed, as {pretrained.source}"
    )
    return 0 if same else 1


def _export(args: argparse.Namespace) -> None:
    """Write a file for other libraries."""
    pretrained = (
        weights.from_run(args.weights, ema=False) if args.raw else weights.load_any(args.weights)
    )
    notes = export(
        pretrained,
        args.format,
        args.output,
        preprocessing=args.preprocessing,
        padding=args.padding,
    )
    print(*notes, f"written to {args.output}", sep="\n")


def _read(args: argparse.Namespace, path: str | Path, source: str) -> weights.Pretrained:
    labels = _read_labels(args.labels) if args.labels else []
    flags = {field.name: getattr(args, field.name) for field in fields(Preprocessing)}
    return weights.import_weights(
        path,
        source,
        ema=not args.raw,
        background=args.background,
        labels=labels,
        preprocessing={name: value for name, value in flags.items() if value is not None},
        activation=args.activation,
    )


def _read_labels(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise UserError(f"--labels={file} is not text in UTF-8 ({error})") from error


def summary(pretrained: weights.Pretrained) -> str:
    """A table of what was read, with the origin of each value."""
    described = weights.describe(pretrained)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(pretrained.variables["params"]))
    lines = {
        "source": pretrained.source,
        "sha256": pretrained.sha256,
        "parameters": f"{parameters:,}",
        "tensors": len(jax.tree.leaves(pretrained.variables)),
        "labels": ", ".join((*pretrained.labels[:3], "...")) if pretrained.labels else "none",
        **{f"model.{name}": value for name, value in described["model"].items()},
        **{f"preprocessing.{name}": v for name, v in described["preprocessing"].items()},
        "activation": pretrained.activation,
    }
    origins = {name: f"  ({origin})" for name, origin in pretrained.provenance.items()}
    width = max(map(len, lines))
    return "\n".join(
        f"{name:<{width}}  {value}{origins.get(name, '')}" for name, value in lines.items()
    )


if __name__ == "__main__":
    sys.exit(command_line.run(main))
