"""What is in a picture: the most probable classes of images, or the features of one layer.

    python -m inception.predict WEIGHTS IMAGE ... [--topk=5] [--plot=FILE.png]
    python -m inception.predict WEIGHTS IMAGE ... [--layer=pooled] --output=FILE.npz

WEIGHTS: a name of python -m inception.weights list, which is downloaded once; a directory of
python -m inception.weights import; a file of anyone's weights; or a run's workdir or
WORKDIR/checkpoints/STEP. IMAGE: a file, or a folder with images at any depth. A file that cannot be
read is reported; the status is 1 if none could be. A file or folder
that several arguments or symbolic links lead to is taken once.

With --output the outputs of a layer are written instead of the table: of a stage such as Mixed_6e,
"pooled" (the 2048 features before the classes), "logits" or "aux_logits". numpy.load(FILE.npz)
gives "features", float32 [images, ...], and "paths", of the images that could be read, in order.
"""

import argparse
import sys
from collections.abc import Sequence

from inception import command_line
from inception.data.decode import MAX_PIXELS
from inception.data.paths import local_path
from inception.errors import UserError
from inception.predict.answers import find_answers, table
from inception.predict.features import write_features
from inception.predict.files import MEMORY_ADVICE, check_some, find_images
from inception.predict.predictor import Predictor
from inception.weights import Pretrained, load_any

MAX_PICTURED = 24  # images in a plot


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and draws the picture, or writes the features that are asked for."""
    args = _arguments(argv)
    files, loaded = find_images(args.images), load_any(args.weights)
    (_save_features if args.output else _show_answers)(args, files, loaded)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("python -m inception.predict", __doc__)
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--topk", type=int, help="classes per image (5)")
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        type=local_path,
        help=f"a picture of the first {MAX_PICTURED} images and their classes",
    )
    parser.add_argument(
        "--output", metavar="FILE.npz", type=local_path, help="write a layer's outputs to this file"
    )
    parser.add_argument("--layer", help="the layer whose outputs are written (pooled)")
    parser.add_argument("--batch_size", type=int, default=64, help="images at once (%(default)s)")
    parser.add_argument(
        "--max_pixels",
        type=int,
        default=MAX_PIXELS,
        help="an image with more is reported, not decoded (%(default)s)",
    )
    args, _ = command_line.parse(parser, argv)
    if args.layer is not None and not args.output:
        parser.error("--layer needs --output=FILE.npz")
    if args.output and (args.plot or args.topk is not None):
        parser.error("--plot and --topk have no effect with --output: leave them out")
    args.topk, args.layer = 5 if args.topk is None else args.topk, args.layer or "pooled"
    if min(args.topk, args.batch_size, args.max_pixels) < 1:
        parser.error("--topk, --batch_size and --max_pixels must be at least 1")
    for flag, path in (("plot", args.plot), ("output", args.output)):
        if path and not path.absolute().parent.is_dir():
            raise UserError(f"--{flag}={path}: there is no folder {path.parent}")
    return args


def _show_answers(args: argparse.Namespace, files: Sequence[str], loaded: Pretrained) -> None:
    if loaded.model.num_classes == 1 and loaded.activation == "softmax":
        raise UserError(
            f"{args.weights} has no classes: python -m inception.predict ... "
            "--layer=pooled --output=FILE.npz can use it"
        )
    predictor = Predictor(
        loaded.model, loaded.variables, loaded.preprocessing, batch_size=args.batch_size
    )
    answers = find_answers(
        predictor,
        loaded.labels,
        files,
        args.topk,
        activation=loaded.activation,
        max_pixels=args.max_pixels,
    )
    check_some(len(answers), files)
    print(table(answers))
    if loaded.activation == "sigmoid":
        print("each class has a probability of its own (sigmoid): they do not add up to 1")
    if args.plot:
        from inception.predict import picture  # matplotlib takes a second and serves only this

        figure = picture.draw(answers[:MAX_PICTURED], args.max_pixels)
        figure.savefig(args.plot, format="png")
        print(f"{args.plot}: {min(len(answers), MAX_PICTURED)} of {len(answers):,} images")


def _save_features(args: argparse.Namespace, files: Sequence[str], loaded: Pretrained) -> None:
    try:
        predictor = Predictor(
            loaded.model,
            loaded.variables,
            loaded.preprocessing,
            endpoints=[args.layer],
            batch_size=args.batch_size,
        )
    except ValueError as error:
        raise UserError(f"--layer={args.layer}: {error}") from error
    shape = write_features(predictor, args.layer, files, args.output, args.max_pixels)
    print(f"{args.output}: {args.layer} of {shape[0]:,} images, {'x'.join(map(str, shape[1:]))}")


if __name__ == "__main__":
    sys.exit(command_line.run(main, MEMORY_ADVICE))
