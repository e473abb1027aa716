"""Exports weights to the files of other libraries, and as programs that run without our code.

A file is written under a temporary name, read back by the library of its format, compared with our
network on a sample, and only then renamed, so no wrong file remains. A format that cannot
represent a network refuses it, or the notes say what is left out.
"""

import os
import shutil
from pathlib import Path

import jax

from inception.data.paths import local_path
from inception.weights.export import foreign, ours, programs
from inception.weights.export.format import Format
from inception.weights.files import WeightsError
from inception.weights.pretrained import Pretrained

FORMATS: dict[str, Format] = foreign.FORMATS | ours.FORMATS | programs.FORMATS


def export(
    pretrained: Pretrained,
    format: str,
    output: str | Path,
    *,
    preprocessing: bool = False,
    padding: str = "",
) -> list[str]:
    """Writes weights in a format, completely or not at all.

    Args:
      pretrained: Weights to export.
      format: One of `FORMATS`.
      output: File to write, or the directory for "safetensors" and "savedmodel".
      preprocessing: Whether a program takes uint8 pixels and scales them itself.
      padding: What torchvision and timm do with a network that does not count the padding, which
        they would refuse: "exact" writes exact_padding.py next to it, "ignore" computes otherwise.

    Returns:
      Notes: how to read it, what it lacks, and what was verified.

    Raises:
      UserError: If `output` is in a bucket.
      WeightsError: If the format cannot represent the network, the name does not fit the format or
        exists, a library is missing, or the output does not compute the same.
    """
    kind = foreign.with_padding(format, padding) if padding else FORMATS[format]
    output = local_path(output)
    if kind.suffixes and not output.name.endswith(kind.suffixes):
        raise WeightsError(
            f"{output} is not a name for {format}. End it in {' or '.join(kind.suffixes)}"
        )
    if preprocessing and not kind.program:
        raise WeightsError(f"preprocessing cannot be part of {format}, which has weights only")
    if output.exists():
        raise WeightsError(f"{output} exists and is not overwritten. Name another output")
    missing = [file for file in kind.companions if not _is_companion_there(output, file)]
    scratch = output.with_name(f".{output.name}-{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        written = scratch / output.name
        notes = kind.write(pretrained, written, preprocessing)
        with jax.default_matmul_precision("highest"):  # on accelerators too
            notes += kind.verify(pretrained, written, preprocessing)
        if pretrained.activation == "sigmoid":
            notes.append(
                "probabilities are a sigmoid of each logit, not a softmax over the classes"
            )
        for file in missing:
            written.with_name(file.name).rename(output.with_name(file.name))
        written.rename(output)
    except ImportError as error:
        raise WeightsError(
            f"writing {output} needs a library that is not installed ({error}). Install it"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return notes


def _is_companion_there(output: Path, file: Path) -> bool:
    """Whether a copy of the file is next to the output.

    Raises:
      WeightsError: If another file of that name is.
    """
    there = output.with_name(file.name)
    if there.exists() and there.read_bytes() != file.read_bytes():
        raise WeightsError(f"{there} exists and is not overwritten. Name another folder")
    return there.exists()
