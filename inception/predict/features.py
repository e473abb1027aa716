"""What the network sees in images: the outputs of one of its layers, for as many as there are.

    python -m inception.predict.features WEIGHTS IMAGE ... [--layer=pooled] --output=FILE.npz

WEIGHTS and IMAGE are those of python -m inception.predict. A layer is a stage, "pooled" (the 2048
features before the classes), "logits" or "aux_logits". FILE.npz holds "features", float32
[images, ...], and "paths", for the images that could be read, in order: numpy.load gives both.
"""

import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from inception import command_line
from inception.data.decode import MAX_PIXELS
from inception.errors import UserError
from inception.predict.files import (
    MEMORY_ADVICE,
    PIXELS_HELP,
    check_some,
    find_images,
    outputs,
)
from inception.predict.predictor import Predictor
from inception.weights import load_any
from inception.workdir.files import local_path


def write_features(
    predictor: Predictor,
    layer: str,
    files: Sequence[str],
    output: str | Path,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, ...]:
    """Writes the outputs of a layer for all files that can be read; the others are reported.

    They go to the disk batch by batch, so memory does not grow with the number of files. Until all
    are there, FILE.npz is not; the disk must hold the features twice.

    Args:
      predictor: whose endpoints include the layer.
      layer: "logits" or an endpoint.
      files: of images.
      output: the file to write, in an existing folder.
      max_pixels: of an image as it is stored, above which it cannot be read.

    Returns:
      The shape of the features, [images, ...].

    Raises:
      UserError: if `output` is there or in a bucket, or no file can be read.
    """
    output = local_path(output)
    if output.exists():
        raise UserError(f"{output} exists and is not overwritten: name another file")
    paths: list[str] = []
    shape: tuple[int, ...] = ()
    with tempfile.TemporaryFile(dir=output.parent) as rows:
        for batch, values in outputs(predictor, files, max_pixels):
            shape = values[layer].shape[1:]
            rows.write(np.ascontiguousarray(values[layer], "<f4").data)
            paths += batch
        check_some(len(paths), files)
        _save(output, rows, (len(paths), *shape), paths)
    return (len(paths), *shape)


def _save(output: Path, rows: IO[bytes], shape: tuple[int, ...], paths: Sequence[str]) -> None:
    """Packs the rows of the features as numpy.savez does, without reading them as a whole."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    partial = output.with_name(f".{output.name}-{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            with archive.open("features.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_2_0(file, header)
                rows.seek(0)
                shutil.copyfileobj(rows, file, 1 << 20)
            with archive.open("paths.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(paths))
        partial.rename(output)
    finally:
        partial.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the features that the command line asks for."""
    parser = command_line.parser("python -m inception.predict.features", __doc__)
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--layer", default="pooled", help="whose outputs (%(default)s)")
    parser.add_argument("--output", required=True, metavar="FILE.npz", type=local_path)
    parser.add_argument("--batch_size", type=int, default=64, help="images at once (%(default)s)")
    parser.add_argument("--max_pixels", type=int, default=MAX_PIXELS, help=PIXELS_HELP)
    args, _ = command_line.parse(parser, argv)
    if min(args.batch_size, args.max_pixels) < 1:
        parser.error("--batch_size and --max_pixels must be at least 1")
    files, loaded = find_images(args.images), load_any(args.weights)
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
