"""A picture of what a config feeds to the network, to look at before a long run.

    python -m inception.show --config=configs/v3.py [--config.FIELD=VALUE ...] [--output=FILE]

At the top: some training images, one per row, as they are stored, and cropped and augmented as in
several epochs. Below: evaluation images as the network sees them, with their classes.
"""

import sys
from collections.abc import Sequence

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from inception import command_line
from inception.config import load, preprocessing
from inception.data.datasets import eval_data, open_eval_source, open_train_source
from inception.data.paths import local_path
from inception.show import images, page


def picture(config: ConfigDict, title: str) -> Figure:
    """Draws a config's training and evaluation data.

    Raises:
      DataError: see `open_source` and the streams.
    """
    crops = config.eval.crops
    training = images.training_rows(
        open_train_source(config),
        seed=config.seed,
        image_size=config.image_size,
        augmentation=config.augmentation,
        max_pixels=config.max_pixels,
    )
    evaluation = images.evaluation_rows(
        open_eval_source(config), preprocessing(config), crops, config.max_pixels
    )
    size = f"{config.image_size} x {config.image_size}"
    how = f"{page.COLUMNS} of the {crops} crops"
    if crops == 1:
        how = f"preprocessing '{config.eval.preprocessing}'"
    above = f"{config.dataset}, {config.split}, {size}, augmentation '{config.augmentation}'"
    below = f"{eval_data(config)[0]}, {config.eval.split}, {size}, {how}"
    return page.draw(
        page.Part(f"{title}: training", above, training),
        page.Part("Evaluation", below, evaluation),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the picture that the command line asks for."""
    parser = command_line.parser("python -m inception.show", __doc__, config=True)
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument(
        "--output", default="augmented.png", type=local_path, help="PNG to write (%(default)s)"
    )
    args, overrides = command_line.parse(parser, argv)
    figure = picture(load(args.config, overrides), args.config)
    figure.savefig(
        args.output,
        format="png",
        bbox_inches="tight",
        pad_inches=0.15,
        pil_kwargs={"optimize": True},
    )
    print(f"{args.output}: look at it before you train.")


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
