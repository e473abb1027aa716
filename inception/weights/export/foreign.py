"""Exports to the weight files of torchvision, timm and Keras.

Each library can load only its own version of the network, described by the `model` of its source in
`SOURCES`. A network that differs is refused: for example, the average pools of torchvision and timm
count the padding, so a network whose pools do not would compute something else there.
`with_padding` makes a format that takes it: exactly, with a Python file next to it, or not.
"""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from inception.network.model import Inception
from inception.weights import names, verify
from inception.weights.export.format import Format, require_close, scaled
from inception.weights.files import WeightsError
from inception.weights.importing import import_weights
from inception.weights.pretrained import Pretrained, describe, shapes_of
from inception.weights.sources import SOURCES

PADDINGS = ("exact", "ignore")
HOOK = Path(verify.__file__).with_name("exact_padding.py")  # copied, never imported without torch
_PADDING = "avg_pool_counts_padding"
# Fields that may differ: sizes, what matters in training only, and the auxiliary head, which can be
# left out.
_FREE = {"num_classes", "aux_head", "dropout_rate", "batch_norm_decay", "batch_norm_group"}
# timm.create_model(..., pretrained=True) refuses weights with an auxiliary head, unless it is told
# to have one; then all its outputs are pairs.
_NO_AUX_HEAD = {"timm"}


def differences(pretrained: Pretrained, source: str) -> dict[str, str]:
    """What the source's network would compute otherwise, by the field of our network."""
    naming, settings = SOURCES[source].naming, SOURCES[source].model
    theirs = describe(dataclasses.replace(pretrained, model=Inception(**settings)))["model"]
    free = _FREE | ({"batch_norm_scale"} if naming is names.TORCH else set())
    return {
        field: f"model.{field} is {ours!r} here, {theirs[field]!r} there"
        for field, ours in describe(pretrained)["model"].items()
        if field not in free and ours != theirs[field]
    }


def _fitted(pretrained: Pretrained, source: str, padding: str = "") -> tuple[Pretrained, list[str]]:
    """The weights for the source's network, and notes on what was changed.

    Args:
      pretrained: Weights to export.
      source: One of `SOURCES`.
      padding: One of `PADDINGS`, if the network may differ in what its average pools count.

    Raises:
      WeightsError: If the networks differ; the message names the fields.
    """
    naming = SOURCES[source].naming
    found = differences(pretrained, source)
    if padding and not found.pop(_PADDING, ""):
        raise WeightsError(
            f"--padding={padding} is for networks whose average pools do not count the padding, "
            "and this one's do. Leave it out"
        )
    if found:
        choices = (
            "--padding=exact writes a few lines of PyTorch next to the weights that make it "
            "the same, --padding=ignore only the weights; or export"
            if [*found] == [_PADDING] and naming is names.TORCH
            else "Export"
        )
        raise WeightsError(
            f"{_library(source)}'s network would compute something else "
            f"({'; '.join(found.values())}). {choices} to onnx, stablehlo or savedmodel, which "
            "take any"
        )
    arrays = flatten_dict(pretrained.variables, sep="/")
    model, notes = _with_aux_head(pretrained.model, source, arrays)
    if model.batch_norm_scale and not pretrained.model.batch_norm_scale:
        notes.append("this network has no scale in its batch normalizations; it is 1 in the file")
    fitted = {
        name: arrays.get(name, np.ones(shape, np.float32))  # only scales can be missing
        for name, shape in shapes_of(model).items()
    }
    variables = unflatten_dict(fitted, sep="/")
    return dataclasses.replace(pretrained, model=model, variables=variables, source=source), notes


def _with_aux_head(
    ours: Inception, source: str, arrays: dict[str, np.ndarray]
) -> tuple[Inception, list[str]]:
    """The source's network, with an auxiliary head if ours fits, and notes."""
    naming = SOURCES[source].naming
    model = Inception(ours.num_classes, aux_head="none", **SOURCES[source].model)
    if ours.aux_head == "none":
        return model, []
    whole = model.clone(aux_head="bn")
    shapes = shapes_of(whole)
    aux_head = {name: array for name, array in arrays.items() if "/AuxLogits/" in name}
    if (
        naming.aux_head
        and _library(source) not in _NO_AUX_HEAD
        and ours.aux_head == "bn"
        and all(array.shape == shapes[name] for name, array in aux_head.items())
    ):
        return whole, []
    return model, [
        "the auxiliary head, which serves training only, is left out: it does not fit there"
    ]


def _tensors(fitted: Pretrained) -> dict[str, np.ndarray]:
    """The tensors by the source's names and in its layout."""
    naming = SOURCES[fitted.source].naming
    arrays = flatten_dict(fitted.variables, sep="/")
    return {
        theirs: np.ascontiguousarray(names.to_source(naming, ours, np.asarray(arrays[ours])))
        for ours, theirs in names.table(naming, arrays).items()
    }


def _library(source: str) -> str:
    return source.partition(".")[0]


def _write_torch(
    pretrained: Pretrained,
    path: Path,
    _: bool,
    *,
    source: str,
    constructor: str,
    padding: str = "",
) -> list[str]:
    fitted, notes = _fitted(pretrained, source, padding)
    state = _tensors(fitted)
    # Counters that inference does not read and imports drop.
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

        torch.save({name: torch.tensor(array) for name, array in state.items()}, path)
    model = fitted.model
    made = constructor.format(classes=model.num_classes, aux=model.aux_head == "bn")
    if padding == "exact":
        path.with_name(HOOK.name).write_bytes(HOOK.read_bytes())
        made = f"exact_padding({made})"
        notes.append(
            f"exact_padding is in {HOOK.name}, which was written next to it; without it the "
            "weights compute something else"
        )
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
        same.sort(key=lambda layer: (len(layer.name), layer.name))  # x, x_1, ..., x_10: by creation
        layers |= {f"{kind}_{number}": layer for number, layer in enumerate(same)}
    for name, layer in layers.items():
        for variable in layer.weights:
            variable.assign(tensors[f"{name}/{variable.name}"])
    weights_alone = path.name.endswith(".weights.h5")
    network.save_weights(path) if weights_alone else network.save(path)
    made = (
        f"keras.applications.InceptionV3(weights=None, classes={classes}, "
        f"input_shape=({size}, {size}, 3), classifier_activation={pretrained.activation!r})"
    )
    return [f"load it with {made}.load_weights; its input is {scaled(pretrained)}", *notes]


def _verify(
    pretrained: Pretrained, path: Path, _: bool, *, source: str, padding: str = ""
) -> list[str]:
    """Reads the file with our importer and with the library of its format."""
    fitted, _notes = _fitted(pretrained, source, padding)
    back = flatten_dict(import_weights(path, source).variables, sep="/")
    arrays = flatten_dict(fitted.variables, sep="/")
    if not all(np.array_equal(back[name], array) for name, array in arrays.items()):
        raise WeightsError(f"the tensors of {path.name} read back differently. Nothing was written")
    notes = ["verified: every tensor reads back the same"]
    ours = dataclasses.replace(pretrained, source=source)
    if padding == "ignore":
        model = ours.model.clone(avg_pool_counts_padding=True)
        ours = dataclasses.replace(ours, model=model)
        notes.append(_effect_of_padding(pretrained, ours))
    try:
        found = verify.verify(ours, path, exact_padding=padding == "exact")
    except WeightsError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        return [*notes, f"not compared with the library's own network: {error}"]
    return [*notes, require_close(found, f"{_library(source)}'s network")]


def _effect_of_padding(ours: Pretrained, theirs: Pretrained) -> str:
    """A note on how far the logits are from ours where the padding counts."""
    size = ours.preprocessing.image_size
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    logits = [
        verify.our_endpoints(each.model, each.variables, images, aux_head=False)["logits"]
        for each in (theirs, ours)
    ]
    far = verify.difference("logits", np.asarray(logits[0]), np.asarray(logits[1]))
    return (
        f"not the same: there the average pools count the padding, which changes the logits of "
        f"two random images by {far.relative:.1e} of the largest. Measure the accuracy there"
    )


def _of_torch(source: str, constructor: str) -> Format:
    write = partial(_write_torch, source=source, constructor=constructor)
    return Format((".pth", ".safetensors"), write, partial(_verify, source=source))


def with_padding(format: str, padding: str) -> Format:
    """The format for a network that does not count the padding, where the library's does.

    Args:
      format: "torchvision" or "timm".
      padding: "exact", to write `HOOK` next to the weights, or "ignore", to accept other outputs.

    Raises:
      WeightsError: For other formats, which need no choice.
    """
    if format not in ("torchvision", "timm"):
        raise WeightsError(
            f"--padding={padding} is for torchvision and timm, not for {format}. Leave it out"
        )
    kind = FORMATS[format]
    return dataclasses.replace(
        kind,
        write=partial(kind.write, padding=padding),  # type: ignore[call-arg]
        verify=partial(kind.verify, padding=padding),  # type: ignore[call-arg]
        companions=(HOOK,) if padding == "exact" else (),
    )


FORMATS = {
    "torchvision": _of_torch(
        "torchvision",
        "torchvision.models.inception_v3(num_classes={classes}, aux_logits={aux}, "
        "transform_input=False)",
    ),
    "timm": _of_torch(  # all of timm's weights have the same network
        "timm.tf_in1k",
        'timm.create_model("inception_v3", num_classes={classes}, aux_logits={aux})',
    ),
    "keras": Format((".h5", ".keras"), _write_keras, partial(_verify, source="keras")),
}
