"""Other people's Inception-v3 and slim's colors, for tests to compare with."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

# slim's distort_color, copied from its text: fast_mode=False.
SLIM_COLOR_ORDERS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)


def random_array(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Weights that keep activations near 1, and statistics that matter.

    `name` is anybody's; kernels, with more than one axis, have their outputs last.
    """
    if len(shape) > 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
    low, high = (0.5, 1.5) if any(kind in name for kind in ("var", "scale")) else (-0.2, 0.2)
    return rng.uniform(low, high, shape).astype(np.float32)


def random_images(size: int, batch: int) -> np.ndarray:
    """Float32 [batch, size, size, 3] in [-1, 1]: squares of 8 pixels under noise.

    Noise alone would look alike everywhere behind a few layers, and batch normalization in
    training would magnify the rounding of what is left; squares alone would make maxima equal.
    """
    rng = np.random.default_rng(0)
    squares = rng.uniform(-1, 1, (batch, size // 8 + 1, size // 8 + 1, 3))
    squares = squares.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]
    return (squares + rng.uniform(-1, 1, squares.shape)).astype(np.float32) / 2


def in_float64(tree):
    """The floating-point arrays of a tree in float64, to compute with under `jax.enable_x64`.

    Two correct programs round differently, and so does one program on two processors. A network
    that normalizes by its batch magnifies that, by as much as it is deep; in float64 it stays a
    million times below what a mistake would change.
    """

    def widened(array):
        array = np.asarray(array)
        return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array

    return jax.tree.map(widened, tree)


class Torch:
    """PyTorch's networks (tests/torch_oracle.py) in a process of their own.

    In one process with TensorFlow, whichever comes second can crash.

    Attributes:
      files: of weights, by source.
      facts: what the libraries do to an image; see `write_facts` there.
    """

    PACKAGES = ("torch", "torchvision", "timm", "pytorch_fid")

    def __init__(self, folder: Path):
        self._folder = folder
        self.files = {
            "torchvision": folder / "inception_v3.pth",
            "timm.gluon_in1k": folder / "inception_v3.gluon_in1k.safetensors",
            "fid": folder / "fid.pth",
        }
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torch_oracle", str(folder)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait("ready")
        self.facts = json.loads((folder / "facts.json").read_text())

    @classmethod
    def missing(cls) -> list[str]:
        """The packages that are not installed."""
        return [name for name in cls.PACKAGES if not importlib.util.find_spec(name)]

    def ask(self, source: str, size: int, batch: int, mode: str) -> dict[str, np.ndarray]:
        """What the oracle's docstring says."""
        self._process.stdin.write(f"{source} {size} {batch} {mode}\n")
        self._process.stdin.flush()
        self._wait("answered")
        with np.load(self._folder / "answer.npz") as answer:
            return dict(answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _wait(self, word: str) -> None:
        line = self._process.stdout.readline()
        assert line.strip() == word, f"the oracle ended: {line}"
