"""What the network sees in images: the outputs of one of its layers, in a file that NumPy reads."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inception.data.decode import MAX_PIXELS
from inception.data.paths import local_path
from inception.errors import UserError
from inception.predict.files import check_some, outputs
from inception.predict.predictor import Predictor


def write_features(
    predictor: Predictor,
    layer: str,
    files: Sequence[str],
    output: str | Path,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, ...]:
    """Writes the outputs of a layer for all files that can be read; the others are reported.

    The file is numpy.savez's, of "features", float32 [images, ...], and "paths". Outputs go to the
    disk batch by batch, so memory does not grow with the number of files; the disk must have room
    for them twice. The file appears under its name only when it is complete.

    Args:
      predictor: Predictor whose endpoints include the layer.
      layer: "logits" or an endpoint.
      files: Paths of images.
      output: File to write, in an existing folder.
      max_pixels: Largest number of pixels of an image as it is stored; a larger one is reported.

    Returns:
      The shape of the features, [images, ...].

    Raises:
      UserError: If `output` exists or is in a bucket, or no file can be read.
    """
    output = local_path(output)
    if output.exists():
        raise UserError(f"{output} exists and is not overwritten: name another file")
    partial = output.with_name(f".{output.name}-{os.getpid()}")
    paths: list[str] = []
    with tempfile.TemporaryFile(dir=output.parent) as rows:
        for batch, values in outputs(predictor, files, max_pixels):
            # Not into a memory map: on a full disk that is a bus error instead of an OSError.
            rows.write(np.ascontiguousarray(values[layer], np.float32).data)
            paths += batch
        check_some(len(paths), files)
        rows.flush()
        shape = len(paths), *values[layer].shape[1:]
        features = np.memmap(rows, np.float32, "r", shape=shape)
        try:
            with partial.open("xb") as file:
                np.savez(file, features=features, paths=paths)
            partial.rename(output)
        finally:
            partial.unlink(missing_ok=True)
    return shape
