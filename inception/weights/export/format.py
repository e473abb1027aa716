"""What a format is, and how an export is compared with our network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inception.weights import verify
from inception.weights.files import WeightsError
from inception.weights.pretrained import Pretrained


@dataclass(frozen=True)
class Format:
    """A format of exports. All functions take (weights, path, whether to scale pixels inside).

    Attributes:
      suffixes: that a file's name may have; () for a directory.
      write: writes the file, and returns sentences on how to use it and on what it lacks.
      verify: reads it back, and returns sentences on what it compared.
      program: whether it computes, so that the scaling of pixels can be inside.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Pretrained, Path, bool], list[str]]
    verify: Callable[[Pretrained, Path, bool], list[str]]
    program: bool = False


def judged(differences: list[verify.Difference], reader: str) -> str:
    """Says how far a reader of the file is from our network.

    Raises:
      WeightsError: when that is further than rounding.
    """
    worst = max(differences, key=lambda difference: difference.relative)
    said = f"{worst.relative:.1e} at {worst.endpoint}, {verify.TOLERANCE:.0e} allowed"
    if worst.relative > verify.TOLERANCE:
        raise WeightsError(f"{reader} computes something else ({said}), so nothing is written")
    return f"verified: {reader} computes the same ({said})"


def scaled(pretrained: Pretrained) -> str:
    """Says what the network's input is made of."""
    mean, std = pretrained.preprocessing.mean, pretrained.preprocessing.std
    return f"RGB, (x / 255 - mean) / std with mean {mean} and std {std}"
