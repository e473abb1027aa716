"""The original libraries' own networks, run on the weights of a file.

PyTorch's modules take images [batch, channels, height, width]; here all images and endpoints are
[batch, height, width, channels] and endpoints have our names. TensorFlow and PyTorch should not be
loaded into one process: whichever comes second can crash.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from inception.data.preprocessing import Preprocessing
from inception.weights import keras_config, keras_graph, names
from inception.weights.files import WeightsError, files_of, open_tensors
from inception.weights.unwrapping import unwrap

Endpoints = dict[str, np.ndarray]

_BIAS = "fc.bias"
_STEM_POOLS = ("MaxPool_3a_3x3", "MaxPool_5a_3x3")
_TORCH_MODULES = {
    **{name: name for name in (*names.STEM, *names.BLOCKS)},
    **dict.fromkeys(("maxpool1", "Pool1"), _STEM_POOLS[0]),
    **dict.fromkeys(("maxpool2", "Pool2"), _STEM_POOLS[1]),
    **dict.fromkeys(("avgpool", "global_pool"), "pooled"),
    **{"fc": "logits", "AuxLogits": "aux_logits"},
}


def endpoints(
    source: str,
    path: str | Path,
    images: np.ndarray,
    scaling: Preprocessing | None = None,
    *,
    ema: bool = True,
) -> Endpoints:
    """What the original network of a source puts out at every stage, and "logits".

    Of a Keras file with a head that says its activation also "probabilities", the model's own.

    Args:
      source: of `sources.SOURCES`.
      path: of a file of its weights.
      images: float32 [batch, height, width, 3].
      scaling: The preprocessing that made the images, for models that scale pixels themselves.
      ema: Takes the running averages of the weights, as `import_weights` does.

    Raises:
      WeightsError: when there is no library with the network, or it is not installed.
    """
    try:
        if source == "keras":
            return _keras_endpoints(path, images, scaling or Preprocessing())
        if source in ("slim", "tensorflow-inception"):
            raise WeightsError(
                f"no package holds the original network of source {source}: convert the weights "
                "and verify those of another source"
            )
        return _torch_endpoints(source, path, images, ema)
    except ImportError as error:
        raise WeightsError(
            f"the original network of source {source} is not installed ({error}): "
            "pip install -r requirements-oracles.txt"
        ) from error


def _torch_endpoints(source: str, path: str | Path, images: np.ndarray, ema: bool) -> Endpoints:
    import torch

    with open_tensors(path) as wrapped:
        tensors, _ = unwrap(wrapped, path, ema)
        arrays = {name: tensors.read(name) for name in tensors.shapes}
    counts = {name: array for name, array in arrays.items() if array.dtype == np.int64}
    weights = {name: arrays[name].astype(np.float32) for name in arrays.keys() - counts}
    state = {name: torch.from_numpy(array) for name, array in (counts | weights).items()}
    network = torch_network(source, state).eval()
    with torch.no_grad(), recorded(network) as found:
        network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        run_aux_head(network, found)
    if _BIAS not in state:
        del found["logits"]
    return {name: channels_last(tensor) for name, tensor in found.items()}


def torch_network(source: str, state: dict[str, Any]) -> Any:
    """The module of torchvision, timm or pytorch-fid with a state dict loaded, all of it.

    Without a head in the state dict, its features are what it puts out.
    """
    if source == "fid":
        from pytorch_fid import inception

        # It would download its weights.
        with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
            return inception.fid_inception_v3()
    head: dict[str, Any] = {
        "num_classes": len(state[_BIAS]) if _BIAS in state else 1,
        "aux_logits": any(name.startswith(names.TORCH.aux_head) for name in state),
    }
    if source == "torchvision":
        import torchvision

        network = torchvision.models.inception_v3(weights=None, init_weights=False, **head)
    else:
        import timm

        network = timm.create_model("inception_v3", **head)
    if _BIAS not in state:
        import torch

        network.fc = torch.nn.Identity()
    network.load_state_dict(state)
    return network


@contextmanager
def recorded(network: Any) -> Iterator[dict[str, Any]]:
    """Collects what the stages of a PyTorch network put out, by our names."""
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            found[name] = output.flatten(1) if name == "pooled" else output

        return hook

    hooks = [
        child.register_forward_hook(keep(_TORCH_MODULES[name]))
        for name, child in network.named_children()
        if name in _TORCH_MODULES
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def run_aux_head(network: Any, found: dict[str, Any]) -> None:
    """Runs the side head, if there is one that did not run, as torchvision's only in training."""
    if network.AuxLogits is not None and "aux_logits" not in found:
        network.AuxLogits(found["Mixed_6e"])


def channels_last(tensor: Any) -> np.ndarray:
    """A PyTorch tensor [batch, channels, height, width] as an array of ours; others as they are."""
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _keras_endpoints(path: str | Path, images: np.ndarray, scaling: Preprocessing) -> Endpoints:
    """Of the model that the file holds; of keras.applications' where it holds weights alone."""
    with open_tensors(path) as tensors:
        described = keras_config.describe(path, tensors, dataclasses.asdict(scaling))
        classes = tensors.shapes.get("predictions/bias", (0,))[0]
    described_model = keras_graph.read(path) is not None
    load = _keras_model if described_model else partial(_keras_weights, classes=classes)
    network = load(files_of(path)[0], images.shape[1:])
    body = next(
        model
        for model in _keras_models(network)
        if any(layer.name == "mixed10" for layer in model.layers)
    )
    outputs = type(body)(body.inputs, keras_outputs(body))(images, training=False)
    values = dict(outputs)

    def recorded_first(activation: Any) -> Any:
        def compute(logits: Any) -> Any:
            values["logits"] = logits
            return activation(logits)

        return compute

    for model in _keras_models(network):
        for layer in model.layers:
            if type(layer).__name__ == "Dense":
                layer.activation = recorded_first(layer.activation)
    pixels = (images * scaling.std + scaling.mean).astype(np.float32) * 255
    whole = network(pixels if described.scales_inside else images, training=False)
    if described.activation and "logits" in values:
        values["probabilities"] = whole
    elif "logits" not in values and len(whole.shape) == 2:
        values["pooled"] = whole
    return {name: np.asarray(value) for name, value in values.items()}


def _keras_model(file: Path, shape: tuple[int, ...]) -> Any:
    """The model of a file that describes it, for images of a shape."""
    import keras

    try:
        if file.name == "model.weights.h5":  # a folder of Hugging Face's
            config = json.loads(file.with_name("config.json").read_text(encoding="utf-8"))
            config.pop("compile_config", None)
            network = keras.saving.deserialize_keras_object(config)
            network.load_weights(file)
        else:
            network = keras.models.load_model(file, compile=False)
    except Exception as error:  # of all kinds, where another version wrote it
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"{file} cannot be loaded by Keras {keras.__version__} ({first}). Verify it where the "
            "Keras is that wrote it, or its weights alone"
        ) from error
    for side, wanted in zip(network.input_shape[1:3], shape, strict=False):
        if side not in (None, wanted):
            raise WeightsError(
                f"{file} takes images of {side} pixels, and {wanted} were given. Leave out "
                "--image_size"
            )
    return network


def _keras_weights(file: Path, shape: tuple[int, ...], classes: int) -> Any:
    """keras.applications' network with the weights of a file."""
    network = keras_network(shape, classes)
    try:
        network.load_weights(file)
    except ValueError as error:
        raise WeightsError(
            f"{file}: keras.applications' network does not take these weights, as where it is a "
            "layer of another model: save the whole model, or the weights of that layer"
        ) from error
    return network


def _keras_models(network: Any) -> Iterator[Any]:
    """A model and all models within it."""
    yield network
    for layer in network.layers:
        if hasattr(layer, "layers"):
            yield from _keras_models(layer)


def keras_network(shape: tuple[int, ...], classes: int) -> Any:
    """keras.applications' network for images of a shape, with logits of `classes` if any."""
    import keras

    body = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=shape)
    if not classes:
        return body
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(body.output)
    return keras.Model(body.input, keras.layers.Dense(classes, name="predictions")(pooled))


def keras_outputs(network: Any) -> dict[str, Any]:
    """Keras's symbolic outputs of the stages, by our names."""
    layers = {layer.name: layer for layer in network.layers}
    relus = [name for name in layers if re.fullmatch(r"activation(_\d+)?", name)]
    pools = [name for name in layers if re.fullmatch(r"max_pooling2d(_\d+)?", name)]
    theirs = {
        **dict(zip(names.STEM, sorted(relus, key=_number), strict=False)),
        **dict(zip(_STEM_POOLS, sorted(pools, key=_number), strict=False)),
        **{block: f"mixed{number}" for number, block in enumerate(names.BLOCKS)},
        **{"pooled": "avg_pool", "logits": "predictions"},
    }
    return {ours: layers[name].output for ours, name in theirs.items() if name in layers}


def _number(name: str) -> int:
    return int((re.findall(r"_(\d+)$", name) or [0])[0])
