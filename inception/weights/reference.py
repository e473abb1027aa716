"""The reference implementations: other libraries' networks, run on the weights of a file.

All images and endpoints are [batch, height, width, channels], PyTorch's too, and endpoints have our
names. Do not load TensorFlow and PyTorch into one process: the second one can crash.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inception.data.preprocessing import Preprocessing
from inception.weights import keras_config, keras_graph, names
from inception.weights.files import WeightsError, files_of, open_tensors
from inception.weights.sources import FID_CLASSES
from inception.weights.unwrapping import unwrap

Endpoints = dict[str, np.ndarray]

_BIAS = "fc.bias"
_COMPARABLE = ("torchvision", "timm", "keras", "fid")
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
    exact_padding: bool = False,
) -> Endpoints:
    """The outputs of a source's own network at every stage, and "logits".

    A Keras model whose head states its activation also gives its "probabilities".

    Args:
      source: One of `sources.SOURCES`.
      path: A file of that source's weights.
      images: float32 [batch, height, width, 3].
      scaling: The preprocessing that made the images, for models that scale pixels themselves.
      ema: Whether to use the running averages of the weights, as in `import_weights`.
      exact_padding: Whether PyTorch's network leaves the padding out of its average pools.

    Raises:
      WeightsError: If no library has this network, or the library is not installed.
    """
    try:
        if source == "keras":
            return _keras_endpoints(path, images, scaling or Preprocessing())
        if source.partition(".")[0] not in _COMPARABLE:
            raise WeightsError(
                f"source {source}: no installable package has its network to compare with. Only "
                f"{', '.join(_COMPARABLE)} can be verified"
            )
        return _torch_endpoints(source, path, images, ema, exact_padding)
    except ImportError as error:
        raise WeightsError(
            f"source {source}: the library with its network is not installed ({error}). Run "
            "pip install -r requirements-oracles.txt"
        ) from error


def _torch_endpoints(
    source: str, path: str | Path, images: np.ndarray, ema: bool, exact_padding: bool
) -> Endpoints:
    import torch

    with open_tensors(path) as wrapped:
        tensors, _ = unwrap(wrapped, path, ema)
        arrays = {name: tensors.read(name) for name in tensors.shapes}
    state = {
        name: torch.from_numpy(array if array.dtype == np.int64 else array.astype(np.float32))
        for name, array in arrays.items()  # int64: counters of batches
    }
    network = torch_network(source, state).eval()
    if exact_padding:
        from inception.weights import exact_padding as hook

        hook.exact_padding(network)
    with torch.no_grad(), recorded(network) as found:
        network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        run_aux_head(network, found)
    if _BIAS not in state:
        del found["logits"]
    return {name: channels_last(tensor) for name, tensor in found.items()}


def torch_network(source: str, state: dict[str, Any]) -> Any:
    """The module of torchvision, timm or pytorch-fid, with a state dict strictly loaded.

    If the state dict has no head, the module's output is the pooled features.
    """
    head: dict[str, Any] = {
        "num_classes": len(state[_BIAS]) if _BIAS in state else 1,
        "aux_logits": any(name.startswith(names.TORCH.aux_head) for name in state),
    }
    if source == "fid":
        network = _fid_network()
    elif source == "torchvision":
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


def _fid_network() -> Any:
    """pytorch-fid's network with random weights.

    The same modules as in pytorch_fid.inception.fid_inception_v3, which also downloads weights.
    """
    import torchvision
    from pytorch_fid import inception as fid

    network = torchvision.models.inception_v3(
        weights=None, init_weights=False, num_classes=FID_CLASSES, aux_logits=False
    )
    network.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = fid.FIDInceptionE_1(1280)
    network.Mixed_7c = fid.FIDInceptionE_2(2048)
    return network


@contextmanager
def recorded(network: Any) -> Iterator[dict[str, Any]]:
    """Collects the outputs of a PyTorch network's stages, by our names."""
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
    """Runs the auxiliary head if it has not run: torchvision runs it only in training."""
    if network.AuxLogits is not None and "aux_logits" not in found:
        network.AuxLogits(found["Mixed_6e"])


def channels_last(tensor: Any) -> np.ndarray:
    """A PyTorch tensor [batch, channels, height, width] as [batch, height, width, channels].

    Tensors with another number of axes keep their layout.
    """
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _keras_endpoints(path: str | Path, images: np.ndarray, scaling: Preprocessing) -> Endpoints:
    """The endpoints of the file's own model, or of keras.applications' if it has only weights."""
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

    def recording_logits(activation: Any) -> Any:
        def compute(logits: Any) -> Any:
            values["logits"] = logits
            return activation(logits)

        return compute

    for model in _keras_models(network):
        for layer in model.layers:
            if type(layer).__name__ == "Dense":
                layer.activation = recording_logits(layer.activation)
    pixels = (images * scaling.std + scaling.mean).astype(np.float32) * 255
    output = network(pixels if described.scales_inside else images, training=False)
    if described.activation and "logits" in values:
        values["probabilities"] = output
    elif "logits" not in values and len(output.shape) == 2:
        values["pooled"] = output
    return {name: np.asarray(value) for name, value in values.items()}


def _keras_model(file: Path, shape: tuple[int, ...]) -> Any:
    """The model that a file describes, for images [height, width, channels] of a shape."""
    import keras

    try:
        if file.name == "model.weights.h5":  # in a folder downloaded from Hugging Face
            config = json.loads(file.with_name("config.json").read_text(encoding="utf-8"))
            config.pop("compile_config", None)
            network = keras.saving.deserialize_keras_object(config)
            network.load_weights(file)
        else:
            network = keras.models.load_model(file, compile=False)
    except Exception as error:  # any kind, if another version wrote the file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"{file} cannot be loaded by Keras {keras.__version__} ({reason}). Verify it with the "
            "version of Keras that wrote it, or verify a file of its weights alone"
        ) from error
    for side, given in zip(network.input_shape[1:3], shape, strict=False):
        if side not in (None, given):
            raise WeightsError(
                f"{file} takes images of {side} pixels, not {given}. Leave out --image_size"
            )
    return network


def _keras_weights(file: Path, shape: tuple[int, ...], classes: int) -> Any:
    """keras.applications' network with the weights of a file."""
    network = keras_network(shape, classes)
    try:
        network.load_weights(file)
    except ValueError as error:
        raise WeightsError(
            f"{file}: keras.applications.InceptionV3 cannot load these weights, perhaps because "
            "it is a layer of another model. Save the whole model, or the weights of that layer"
        ) from error
    return network


def _keras_models(network: Any) -> Iterator[Any]:
    """A model and all models inside it."""
    yield network
    for layer in network.layers:
        if hasattr(layer, "layers"):
            yield from _keras_models(layer)


def keras_network(shape: tuple[int, ...], classes: int) -> Any:
    """keras.applications' network for images of a shape; `classes` logits, or none for 0."""
    import keras

    body = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=shape)
    if not classes:
        return body
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(body.output)
    return keras.Model(body.input, keras.layers.Dense(classes, name="predictions")(pooled))


def keras_outputs(network: Any) -> dict[str, Any]:
    """The symbolic outputs of a Keras network's stages, by our names."""
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
