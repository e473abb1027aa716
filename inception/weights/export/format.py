"""The interface of an export format, and the comparison of an export with our network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inception.weights import verify
from inception.weights.files import WeightsError
from inception.weights.pretrained import Pretrained


@dataclass(frozen=True)
class Format:
    """A format of exports. Its functions take (weights, path, whether to scale pixels inside).

    Attributes:
      suffixes: Suffixes that a file's name may have; () for a directory.
      write: Writes the file, and returns notes on how to use it and what it lacks.
      verify: Reads it back, and returns notes on what was compared.
      program: Whether it is a program, which can scale pixels itself.
      companions: Files of this package that `write` copies next to the output.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Pretrained, Path, bool], list[str]]
    verify: Callable[[Pretrained, Path, bool], list[str]]
    program: bool = False
    companions: tuple[Path, ...] = ()


def require_close(differences: list[verify.Difference], reader: str) -> str:
    """A note on the largest difference between our network and a reader of the file.

    Raises:
      WeightsError: If it is larger than rounding.
    """
    worst = max(differences, key=lambda difference: difference.relative)
    measured = f"{worst.relative:.1e} at {worst.endpoint}, {verify.TOLERANCE:.0e} allowed"
    if worst.relative > verify.TOLERANCE:
        raise WeightsError(f"{reader} computes something else ({measured}). Nothing was written")
    return f"verified: {reader} computes the same ({measured})"


def scaled(pretrained: Pretrained) -> str:
    """A description of the network's input."""
    mean, std = pretrained.preprocessing.mean, pretrained.preprocessing.std
    return f"RGB, (x / 255 - mean) / std with mean {mean} and std {std}"
