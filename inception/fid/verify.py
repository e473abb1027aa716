"""Compares our features and FID with other tools' on the same files and the same weights."""

import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inception.fid.bridge import Mesh, UserError
from inception.fid.extract import Extractor
from inception.fid.frechet import distance
from inception.fid.images import open_images
from inception.fid.oracles import TOOLS
from inception.fid.pipeline import count_of, measure
from inception.fid.statistics import Statistics, statistics_of

FEATURES = 1e-5  # maximum difference, relative to a layer's largest value
FID = 1e-5  # maximum relative difference between our distance of our features and of theirs
# Maximum relative difference to the tool's own FID, whose matrix root is off by 4e-5 below full
# rank.
PRINTED = 1e-4


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison with a tool.

    Attributes:
      tool: Name of the tool.
      differences: Maximum difference of a feature relative to the layer's largest value, by layer.
      ours: FID of our features.
      theirs: FID of the tool's features, by our distance.
      printed: FID that the tool itself computes; NaN where it fails.
    """

    tool: str
    differences: dict[str, float]
    ours: float
    theirs: float
    printed: float

    @property
    def is_close(self) -> bool:
        """Whether everything is within the tolerances."""
        printed = self.ours if np.isnan(self.printed) else self.printed
        return (
            max(self.differences.values()) <= FEATURES
            and abs(self.ours - self.theirs) <= FID * abs(self.theirs)
            and abs(self.ours - printed) <= PRINTED * abs(printed)
        )


def verify(
    real: str, fake: str, weights: str, tool: str, batch_size: int = 16, mesh: Mesh | None = None
) -> Agreement:
    """Compares with one tool.

    Args:
      real: Folder of images on a disk.
      fake: Another folder.
      weights: Path of pytorch-fid's .pth, which both sides read.
      tool: Name in `oracles.TOOLS`.
      batch_size: Number of images in a batch on our side.
      mesh: Our devices; None for all.

    Raises:
      UserError: If the tool is unknown, not installed or fails, or reads other files than we do.
    """
    if tool not in TOOLS:
        raise UserError(f"tool {tool!r} is unknown; it is one of {', '.join(TOOLS)}")
    if not importlib.util.find_spec(TOOLS[tool][0]):
        raise UserError(f"{tool} is not installed: pip install -r requirements-oracles.txt")
    for path in (real, fake):
        if not Path(path).is_dir():
            raise UserError(f"{path} is not a folder on a disk, which is what {tool} reads")
    if Path(weights).suffix != ".pth" or not Path(weights).is_file():
        raise UserError(f"--weights={weights} must be pytorch-fid's .pth, which {tool} reads too")
    for path in (real, fake):
        count_of(open_images(path))
    theirs = _ask(tool, weights, real, fake)
    layers = [name.removeprefix("real ") for name in theirs if name.startswith("real ")]
    extract = Extractor(weights, tool, layers, mesh=mesh)
    differences: dict[str, float] = dict.fromkeys(layers, 0.0)
    sides: list[tuple[Statistics, Statistics]] = []
    for side, path in (("real", real), ("fake", fake)):
        ours = measure(open_images(path), extract, keep=layers, batch_size=batch_size).features
        for layer in layers:
            expected = theirs[f"{side} {layer}"]
            if len(expected) != len(ours[layer]):
                raise UserError(
                    f"{path}: {tool} reads {len(expected)} images but we read "
                    f"{len(ours[layer])}; it takes suffixes in lower case only"
                )
            largest = float(np.abs(ours[layer] - expected).max() / np.abs(expected).max())
            differences[layer] = max(differences[layer], largest)
        sides.append((statistics_of(ours["pooled"]), statistics_of(theirs[f"{side} pooled"])))
    our_fid, their_fid = (distance(*pair) for pair in zip(*sides, strict=True))
    return Agreement(tool, differences, our_fid, their_fid, float(theirs["fid"]))


def _ask(tool: str, weights: str, real: str, fake: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "features.npz"
        command = [
            sys.executable,
            "-m",
            "inception.fid.oracles",
            tool,
            weights,
            real,
            fake,
            str(output),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{tool} fails on these folders: {last}")
        with np.load(output) as found:
            return dict(found)
