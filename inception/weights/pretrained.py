"""Weights with everything needed to use them, and the directory they are saved in.

DIRECTORY/weights.safetensors has the variables by their paths ("params/Logits/bias"),
DIRECTORY/model.json the rest as text.
"""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from inception.data.paths import local_path
from inception.data.preprocessing import Preprocessing
from inception.network.model import Inception
from inception.weights.description import ACTIVATIONS
from inception.weights.files import WeightsError, check_tensors, open_tensors

FORMAT = 1
WEIGHTS_FILE, DESCRIPTION_FILE = "weights.safetensors", "model.json"
_NOT_SAVED = {"parent", "name", "dtype", "fuse"}  # Flax's own, and how a run computes


@dataclass(frozen=True)
class Pretrained:
    """Weights and everything needed to use them.

    Attributes:
      model: Network that computes the same as the source's.
      variables: Collections "params" and "batch_stats" of float32 NumPy arrays.
      preprocessing: Preprocessing that makes the network's input from an image.
      labels: Names of the classes, () if unknown.
      source: One of `sources.SOURCES`, or the checkpoint of a run.
      sha256: Digest of the imported file, "" for a run.
      activation: Function from logits to probabilities: "softmax" over the classes, or "sigmoid" of
        each, for images with several labels.
      provenance: For an import, the origins of the fields of preprocessing and model, the labels
        and the activation ("preprocessing.mean": "config.json", "given" or "assumed"), and what was
        chosen or left out ("parameters": "running averages, state_dict_ema/").
    """

    model: Inception
    variables: dict[str, Any]
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    source: str
    sha256: str
    activation: str = "softmax"
    provenance: dict[str, str] = field(default_factory=dict)


def save(directory: str | Path, pretrained: Pretrained) -> None:
    """Writes `directory` on a disk, completely or not at all.

    Raises:
      UserError: If it is in a bucket.
      WeightsError: If a directory or file of that name exists.
    """
    import safetensors.numpy

    directory = local_path(directory)
    if directory.exists():
        raise WeightsError(f"{directory} exists and is not overwritten. Name another directory")
    scratch = directory.with_name(f".{directory.name}-{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        arrays = flatten_dict(pretrained.variables, sep="/")
        content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        (scratch / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(content))
        (scratch / DESCRIPTION_FILE).write_text(json.dumps(describe(pretrained), indent=2) + "\n")
        scratch.rename(directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def describe(pretrained: Pretrained) -> dict[str, Any]:
    """Everything but the arrays, as plain data: the content of model.json."""
    model = pretrained.model
    fields = [each.name for each in dataclasses.fields(model) if each.name not in _NOT_SAVED]
    return {
        "format": FORMAT,
        "source": pretrained.source,
        "sha256": pretrained.sha256,
        "model": {name: getattr(model, name) for name in fields},
        "preprocessing": dataclasses.asdict(pretrained.preprocessing),
        "labels": list(pretrained.labels),
        "activation": pretrained.activation,
        "provenance": pretrained.provenance,
    }


def load(directory: str | Path, checked: bool = False) -> Pretrained:
    """Reads what `save` wrote.

    Args:
      directory: Directory that `save` wrote.
      checked: Whether its files are known to be those that this version wrote. Otherwise the
        arrays are compared with the network's, which takes a second of tracing.

    Raises:
      UserError: If it is in a bucket.
      WeightsError: If it is incomplete, damaged, or written by a newer version.
    """
    directory = local_path(directory)
    rest = _read_description(directory / DESCRIPTION_FILE)
    with open_tensors(directory / WEIGHTS_FILE) as tensors:
        if not checked:
            shapes = shapes_of(rest["model"], rest["preprocessing"].image_size)
            check_tensors(directory / WEIGHTS_FILE, tensors.shapes, shapes)
        arrays = {name: np.asarray(tensors.read(name), np.float32) for name in tensors.shapes}
    return Pretrained(variables=unflatten_dict(arrays, sep="/"), **rest)


def _read_description(file: Path) -> dict[str, Any]:
    """The fields of `Pretrained` in model.json: all but the variables."""
    try:
        content = json.loads(file.read_text())
        if content["format"] != FORMAT:
            raise WeightsError(
                f"{file} has format {content['format']!r}, but this version reads {FORMAT}. "
                "Import the weights again"
            )
        preprocessing = content["preprocessing"]
        scaling = {name: tuple(preprocessing[name]) for name in ("mean", "std")}
        model, labels = Inception(**content["model"]), content["labels"]
        activation = content.get("activation", "softmax")  # not in older files
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r}")
        if labels and len(labels) != model.num_classes:
            raise ValueError(f"{len(labels)} labels for {model.num_classes} classes")
        return {
            "model": model,
            "preprocessing": Preprocessing(**(preprocessing | scaling)),
            "labels": tuple(labels),
            "source": content["source"],
            "sha256": content["sha256"],
            "activation": activation,
            "provenance": dict(content.get("provenance", {})),
        }
    except WeightsError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{file} is missing or damaged ({error}). Import the weights again"
        ) from error


def from_run(path: epath.PathLike, ema: bool = True) -> Pretrained:
    """The weights of a run's newest checkpoint, or of the given one.

    Args:
      path: The run's workdir or WORKDIR/checkpoints/STEP, on a disk or in a bucket.
      ema: Whether to use the running averages of the weights.

    Raises:
      CheckpointError: If it does not exist or cannot be read.
    """
    from inception.workdir.restore import restore_run  # deferred: Orbax takes seconds to import

    run = restore_run(path)
    return Pretrained(
        model=run.model,
        variables=jax.tree.map(np.asarray, run.variables("ema" if ema else "raw")),
        preprocessing=run.preprocessing,
        labels=run.class_names,
        source=os.fspath(run.workdir / "checkpoints" / str(run.step)),
        sha256="",
    )


def shapes_of(model: Inception, image_size: int = 299) -> dict[str, tuple[int, ...]]:
    """The shape of every variable of the network by its path, "params/Logits/bias".

    The auxiliary head's fully connected layer depends on the size of the images.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return {name: leaf.shape for name, leaf in flatten_dict(variables, sep="/").items()}
