"""Anyone's Inception-v3 weights, checked: read, kept, and compared with where they came from.

model, variables, preprocessing = inception.load_pretrained("inception_v3_google-0cc3c7bd.pth")

`import_weights` and `load` give all there is to know as a `Pretrained`, `save` keeps it. On the
command line: python -m inception.weights import auto FILE --output=DIRECTORY. Reading needs
PyTorch for .pth files only, and TensorFlow for its checkpoints.
"""

from pathlib import Path
from typing import Any

from inception.model import Inception
from inception.preprocessing import Preprocessing
from inception.weights.files import WeightsError
from inception.weights.importing import import_weights
from inception.weights.pretrained import Pretrained, describe, load, save
from inception.weights.sources import SOURCES

__all__ = [
    "SOURCES",
    "Pretrained",
    "WeightsError",
    "describe",
    "import_weights",
    "load",
    "load_pretrained",
    "save",
]


def load_any(path: str | Path) -> Pretrained:
    """A directory that `save` wrote, or a file of any source that can be recognized.

    Raises:
      WeightsError: when it is neither.
    """
    return load(path) if Path(path).expanduser().is_dir() else import_weights(path)


def load_pretrained(path: str | Path) -> tuple[Inception, dict[str, Any], Preprocessing]:
    """The network, its variables and how an image becomes its input.

    Args:
      path: a directory that `save` wrote, or a file of weights: of torchvision, timm, Keras, slim,
        research/inception or pytorch-fid.

    Raises:
      WeightsError: when it is neither, or cannot be read.
    """
    pretrained = load_any(path)
    return pretrained.model, pretrained.variables, pretrained.preprocessing
