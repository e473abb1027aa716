"""Anyone's Inception-v3 weights, checked: read, kept, and compared with where they came from.

model, variables, preprocessing = inception.load_pretrained("torchvision")  # or a file, or a run

`load_any` gives all there is to know, also about a run's weights, as a `Pretrained`; `save` keeps
it. On the command line: python -m inception.weights list, or import auto FILE --output=DIRECTORY.
What has a name (registry.py) is downloaded once and kept. Reading needs another library,
TensorFlow, for TensorFlow's checkpoints only.
"""

import os
from typing import Any

from inception.data.paths import is_local
from inception.data.preprocessing import Preprocessing
from inception.network.model import Inception
from inception.weights import locate, registry
from inception.weights.files import WeightsError, files_of
from inception.weights.importing import import_weights
from inception.weights.pretrained import (
    DESCRIPTION_FILE,
    Pretrained,
    describe,
    from_run,
    load,
    save,
)
from inception.weights.sources import SOURCES

__all__ = [
    "SOURCES",
    "Pretrained",
    "WeightsError",
    "describe",
    "from_run",
    "import_weights",
    "load",
    "load_any",
    "load_pretrained",
    "save",
]


def load_any(path: str | os.PathLike) -> Pretrained:
    """Whatever holds this network's weights: imported ones, a file of anybody's, or a run.

    Args:
      path: A directory that `save` wrote; a file of torchvision, timm, Keras, slim,
        research/inception or pytorch-fid; a folder of timm's or Keras's as Hugging Face has it,
        config.json and model.safetensors or model.weights.h5; or a run's workdir or
        WORKDIR/checkpoints/STEP, on a disk or in a bucket, whose running averages are taken. If
        there is no such path: a name of `registry.REGISTRY`, "hf-hub:USER/REPO",
        "hf-hub:USER/REPO@REVISION" or "https://HOST/FILE#sha256=DIGEST", which is downloaded unless
        it is on this machine.

    Raises:
      WeightsError: If it is none of these, cannot be downloaded, or cannot be read.
      CheckpointError: If a run's checkpoint does not exist or cannot be read.
    """
    if published := locate.named(path):
        return locate.load(published)
    from inception.workdir.identity import (  # Orbax takes seconds and serves this
        is_run,
        resolve_workdir,
    )

    if is_run(path):
        return from_run(path)
    workdir = resolve_workdir(path)
    if (workdir / DESCRIPTION_FILE).exists():
        return load(os.fspath(path))
    try:
        files_of(os.fspath(path))
    except WeightsError as error:
        kinds = (
            f"{DESCRIPTION_FILE} (imported weights), config.json and model.safetensors (timm), or "
            "config.json and checkpoints/ (a run)"
        )
        what = "a directory without" if workdir.is_dir() else "neither a file nor a directory with"
        raise WeightsError(
            f"{path} holds no weights: it is {what} {kinds}. {_what_else(path)}"
        ) from error
    return import_weights(os.fspath(path))


def _what_else(path: str | os.PathLike) -> str:
    """Advice for a path without weights, appended to the error."""
    if not is_local(path):
        return "In a bucket only runs are looked for"
    near = registry.nearest(os.fspath(path))
    names = f"names like it are {', '.join(near)}; " if near else ""
    return (
        f"It is not the name of published weights either: {names}python -m inception.weights list "
        "shows all"
    )


def load_pretrained(path: str | os.PathLike) -> tuple[Inception, dict[str, Any], Preprocessing]:
    """The network, its variables, and the preprocessing of its images.

    Args:
      path: Weights, as in `load_any`.

    Raises:
      WeightsError, CheckpointError: As in `load_any`.
    """
    pretrained = load_any(path)
    return pretrained.model, pretrained.variables, pretrained.preprocessing
