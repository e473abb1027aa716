"""What is in a picture: the most probable classes of images.

    python -m inception.predict WEIGHTS IMAGE ... [--topk=5] [--plot=FILE.png]

WEIGHTS: a name of python -m inception.weights list, which is downloaded once; a directory of
python -m inception.weights import; anybody's file of weights; or a run's workdir or
WORKDIR/checkpoints/STEP. IMAGE: a file, or a folder with images at any depth. A file that cannot be
read is reported; the status is 1 if none could be. A folder that a symbolic link leads to is looked
through once.
"""

import sys
from collections.abc import Sequence

from inception import command_line
from inception.data.decode import MAX_PIXELS
from inception.errors import UserError
from inception.predict.answers import find_answers, table
from inception.predict.files import MEMORY_ADVICE, PIXELS_HELP, check_some, find_images
from inception.predict.predictor import Predictor
from inception.weights import load_any
from inception.workdir.files import local_path

PICTURED = 24  # images that a plot shows at most


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table that the command line asks for, and draws the picture."""
    parser = command_line.parser("python -m inception.predict", __doc__)
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--topk", type=int, default=5, help="classes per image (%(default)s)")
    parser.add_argument(
        "--plot", metavar="FILE.png", type=local_path, help=f"draws up to {PICTURED} of the images"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="images at once (%(default)s)")
    parser.add_argument("--max_pixels", type=int, default=MAX_PIXELS, help=PIXELS_HELP)
    args, _ = command_line.parse(parser, argv)
    if min(args.topk, args.batch_size, args.max_pixels) < 1:
        parser.error("--topk, --batch_size and --max_pixels must be at least 1")
    if args.plot and not args.plot.absolute().parent.is_dir():
        raise UserError(f"--plot={args.plot}: there is no folder {args.plot.parent}")
    files, loaded = find_images(args.images), load_any(args.weights)
    if loaded.model.num_classes == 1 and loaded.activation == "softmax":
        raise UserError(
            f"{args.weights} has no classes: python -m inception.predict.features can use it"
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

        figure = picture.draw(answers[:PICTURED], args.max_pixels)
        figure.savefig(args.plot, format="png")
        print(f"{args.plot}: {min(len(answers), PICTURED)} of {len(answers):,} images")


if __name__ == "__main__":
    sys.exit(command_line.run(main, MEMORY_ADVICE))
