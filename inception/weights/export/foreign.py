"""The weight files of torchvision, timm and Keras.

They hold the released network only, as each library computes it: what `SOURCES` says of its model
is what a network must be to be carried. torchvision's and timm's average pools count the padding,
so a network whose pools do not would compute something else there, and is refused.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from inception.network.model import Inception
from inception.weights import names, verify
from inception.weights.export.format import Format, judged, scaled
from inception.weights.files import WeightsError
from inception.weights.importing import import_weights
from inception.weights.pretrained import Pretrained, describe, shapes_of
from inception.weights.sources import SOURCES

# Fields that a file does not have to agree on: sizes, what matters in training only, and the side
# head, which can be left out.
_FREE = {"num_classes", "aux_head", "dropout_rate", "batch_norm_decay", "batch_norm_group"}


def _fitted(pretrained: Pretrained, source: str) -> tuple[Pretrained, list[str]]:
    """The weights as those of the source's network, and what they lack then.

    Raises:
      WeightsError: naming the fields in which the networks differ.
    """
    naming, settings = SOURCES[source].naming, SOURCES[source].model
    theirs = describe(dataclasses.replace(pretrained, model=Inception(**settings)))["model"]
    free = _FREE | ({"batch_norm_scale"} if naming is names.TORCH else set())
    differences = [
        f"model.{field} is {ours!r} here, {theirs[field]!r} there"
        for field, ours in describe(pretrained)["model"].items()
        if field not in free and ours != theirs[field]
    ]
    if differences:
        raise WeightsError(
            f"{_library(source)}'s network would compute something else "
            f"({'; '.join(differences)}): export onnx, stablehlo or savedmodel, which carry any"
        )
    arrays = flatten_dict(pretrained.variables, sep="/")
    model, notes = _with_aux_head(pretrained.model, naming, settings, arrays)
    if model.batch_norm_scale and not pretrained.model.batch_norm_scale:
        notes.append("this network has no scale in its batch normalization: it is 1 in the file")
    fitted = {
        name: arrays.get(name, np.ones(shape, np.float32))  # only scales can be missing
        for name, shape in shapes_of(model).items()
    }
    variables = unflatten_dict(fitted, sep="/")
    return dataclasses.replace(pretrained, model=model, variables=variables, source=source), notes


def _with_aux_head(
    ours: Inception, naming: names.Naming, settings: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[Inception, list[str]]:
    """The source's network, with the side head where it has room for ours."""
    model = Inception(ours.num_classes, aux_head="none", **settings)
    if ours.aux_head == "none":
        return model, []
    whole = model.clone(aux_head="bn")
    shapes = shapes_of(whole)
    aux_head = {name: array for name, array in arrays.items() if "/AuxLogits/" in name}
    if (
        naming.aux_head
        and ours.aux_head == "bn"
        and all(array.shape == shapes[name] for name, array in aux_head.items())
    ):
        return whole, []
    return model, ["the side head, which serves training only, is left out: it has no place there"]


def _tensors(fitted: Pretrained) -> dict[str, np.ndarray]:
    """By the source's names, laid out as there."""
    naming = SOURCES[fitted.source].naming
    arrays = flatten_dict(fitted.variables, sep="/")
    return {
        theirs: np.ascontiguousarray(names.to_source(naming, ours, np.asarray(arrays[ours])))
        for ours, theirs in names.table(naming, arrays).items()
    }


def _library(source: str) -> str:
    return source.partition(".")[0]


def _write_torch(
    pretrained: Pretrained, path: Path, _: bool, *, source: str, constructor: str
) -> list[str]:
    fitted, notes = _fitted(pretrained, source)
    state = _tensors(fitted)
    # Counters that no inference reads and an import does not keep.
    state |= {
        name.replace("running_var", "num_batches_tracked"): np.zeros((), np.int64)
        for name in state
        if name.endswith("running_var")
    }
    if path.suffix == ".safetensors":
        import safetensors.numpy

        path.write_bytes(safetensors.numpy.save(state, metadata={"format": "pt"}))
    else:
        import torch

        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
    model = fitted.model
    made = constructor.format(classes=model.num_classes, aux=model.aux_head == "bn")
    return [f"load it into {made}; its input is {scaled(pretrained)}", *notes]


def _write_keras(pretrained: Pretrained, path: Path, _: bool) -> list[str]:
    fitted, notes = _fitted(pretrained, "keras")
    import keras

    classes, tensors = fitted.model.num_classes, _tensors(fitted)
    size = fitted.preprocessing.image_size
    network = keras.applications.InceptionV3(
        weights=None,
        classes=classes,
        input_shape=(size, size, 3),
        classifier_activation=pretrained.activation,
    )
    layers = {"predictions": network.get_layer("predictions")}
    for kind in ("conv2d", "batch_normalization"):
        same = [layer for layer in network.layers if layer.name.startswith(kind)]
        same.sort(key=lambda layer: (len(layer.name), layer.name))  # x, x_1, ..., x_10: as created
        layers |= {f"{kind}_{number}": layer for number, layer in enumerate(same)}
    for name, layer in layers.items():
        for variable in layer.weights:
            variable.assign(tensors[f"{name}/{variable.name}"])
    whole = not path.name.endswith(".weights.h5")
    network.save(path) if whole else network.save_weights(path)
    made = (
        f"keras.applications.InceptionV3(weights=None, classes={classes}, "
        f"input_shape=({size}, {size}, 3), classifier_activation={pretrained.activation!r})"
    )
    return [f"load it with {made}.load_weights; its input is {scaled(pretrained)}", *notes]


def _verify(pretrained: Pretrained, path: Path, _: bool, *, source: str) -> list[str]:
    """Reads the file with our importer, and with the library whose format it is."""
    fitted, _notes = _fitted(pretrained, source)
    back = flatten_dict(import_weights(path, source).variables, sep="/")
    arrays = flatten_dict(fitted.variables, sep="/")
    if not all(np.array_equal(back[name], array) for name, array in arrays.items()):
        raise WeightsError(f"the tensors of {path.name} read back differently: nothing is written")
    notes = ["verified: every tensor reads back the same"]
    try:
        differences = verify.verify(dataclasses.replace(pretrained, source=source), path)
    except WeightsError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        return [*notes, f"not compared with the library's own network, which is missing: {error}"]
    return [*notes, judged(differences, f"{_library(source)}'s network")]


def _of_torch(source: str, constructor: str) -> Format:
    write = partial(_write_torch, source=source, constructor=constructor)
    return Format((".pth", ".safetensors"), write, partial(_verify, source=source))


FORMATS = {
    "torchvision": _of_torch(
        "torchvision",
        "torchvision.models.inception_v3(num_classes={classes}, aux_logits={aux}, "
        "transform_input=False)",
    ),
    "timm": _of_torch(  # all of timm's are one network
        "timm.tf_in1k",
        'timm.create_model("inception_v3", num_classes={classes}, aux_logits={aux})',
    ),
    "keras": Format((".h5",), _write_keras, partial(_verify, source="keras")),
}
