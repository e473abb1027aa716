"""Weights out again: as the files of other libraries, and as programs that need none of ours.

A file is written under another name, read back by the library whose format it is, compared with
our network on a sample, and only then given its name: what was found to be wrong is never there.
A format that cannot carry a network refuses it, or says what it leaves out.
"""

import os
import shutil
from pathlib import Path

import jax

from inception.weights.export import foreign, ours, programs
from inception.weights.export.format import Format
from inception.weights.files import WeightsError
from inception.weights.pretrained import Pretrained
from inception.workdir.files import local_path

FORMATS: dict[str, Format] = foreign.FORMATS | ours.FORMATS | programs.FORMATS


def export(
    pretrained: Pretrained, format: str, output: str | Path, *, preprocessing: bool = False
) -> list[str]:
    """Writes weights in a format, all of it or nothing.

    Args:
      pretrained: the weights.
      format: of `FORMATS`.
      output: a file, or a directory for "safetensors" and "savedmodel".
      preprocessing: of a program: takes uint8 pixels and scales them itself.

    Returns:
      Sentences: how to read it, what it does not carry, and what was verified.

    Raises:
      UserError: when `output` is in a bucket.
      WeightsError: when the format cannot carry the network, the name does not fit the format or is
        taken, a library is missing, or what was written does not compute the same.
    """
    kind, output = FORMATS[format], local_path(output)
    if kind.suffixes and not output.name.endswith(kind.suffixes):
        raise WeightsError(
            f"{output} is no name for {format}: end it in {' or '.join(kind.suffixes)}"
        )
    if preprocessing and not kind.program:
        raise WeightsError(f"preprocessing cannot be inside {format}, which holds weights only")
    if output.exists():
        raise WeightsError(f"{output} exists and is not overwritten: name another")
    scratch = output.with_name(f".{output.name}-{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        written = scratch / output.name
        notes = kind.write(pretrained, written, preprocessing)
        with jax.default_matmul_precision("highest"):  # of accelerators too
            notes += kind.verify(pretrained, written, preprocessing)
        if pretrained.activation == "sigmoid":
            notes.append("a sigmoid of each logit, not a softmax, makes the classes' probabilities")
        written.rename(output)
    except ImportError as error:
        raise WeightsError(
            f"writing {output} needs a library that is not installed ({error}): install it"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return notes
