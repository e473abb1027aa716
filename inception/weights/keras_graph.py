"""The layers of a Keras model as one graph, read from the description in the model's file.

The description is config.json in a .keras file or in a folder from Hugging Face, and an attribute
of a whole model's .h5; files of weights alone have none. Keras 2 and 3 write it differently. Nested
models are flattened. Nothing in a description is executed.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inception.weights.files import WeightsError, files_of

_MAX_BYTES = 1 << 26  # keras.applications' network takes 0.1 MiB
_CONFIG = "config.json"
_DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
# Layers that do nothing at inference.
_IDLE = {
    *("InputLayer", "Identity", "ActivityRegularization", "Cast", "cast"),
    *("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
}
_MODELS = ("Functional", "Model", "Sequential")


@dataclass(frozen=True)
class Layer:
    """A layer, or an operation of NumPy or TensorFlow that Keras keeps as a layer.

    Attributes:
      name: Path through the nested models, such as "inception_v3/mixed10".
      kind: Class, such as "Conv2D"; for an operation of TensorFlow its name, "math.subtract".
      config: Arguments of the constructor.
      inputs: Names of the layers whose outputs it takes.
      constants: Numbers that an operation takes in addition.
    """

    name: str
    kind: str
    config: dict[str, Any]
    inputs: tuple[str, ...]
    constants: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


@dataclass(frozen=True)
class Graph:
    """A model.

    Attributes:
      layers: Layers by name, each after those whose outputs it takes.
      outputs: Names of the layers whose outputs are the model's.
      loss: Loss that it was compiled with, as Keras writes it; None without one.
    """

    layers: dict[str, Layer]
    outputs: tuple[str, ...]
    loss: Any = None


def read(path: str | Path) -> Graph | None:
    """The graph that a file describes.

    Returns:
      None if the file holds weights alone, or a subclassed model, which has no description.

    Raises:
      WeightsError: If the description is damaged or cannot be understood.
    """
    with reading(path):
        model, compiled = _descriptions(files_of(path)[0])
        if not model or model.get("class_name") not in _MODELS:
            return None
        layers: dict[str, Layer] = {}
        outputs = _open(model, "", (), layers)
        return Graph(layers, tuple(outputs), compiled.get("loss"))


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns any error from a malformed description into a WeightsError."""
    try:
        yield
    except WeightsError:
        raise
    except _DAMAGE as error:
        raise WeightsError(
            f"{path} describes its model in a way that cannot be read ({error!r}). Save the "
            "weights alone with model.save_weights('x.weights.h5')"
        ) from error


def _descriptions(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The descriptions of the model and of how it was compiled, {} if missing."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if _CONFIG not in archive.namelist():
                return {}, {}
            if archive.getinfo(_CONFIG).file_size > _MAX_BYTES:
                raise WeightsError(f"{path}: its {_CONFIG} has more than {_MAX_BYTES} bytes")
            model = json.loads(archive.read(_CONFIG))
        return model, model.get("compile_config") or {}
    if path.name == "model.weights.h5" and (config := path.with_name(_CONFIG)).is_file():
        model = json.loads(config.read_text(encoding="utf-8"))
        return (model, model.get("compile_config") or {}) if "class_name" in model else ({}, {})
    import h5py

    with h5py.File(path, "r") as file:
        texts = [file.attrs.get(name, "{}") for name in ("model_config", "training_config")]
    model, compiled = (json.loads(text) for text in texts)
    return model, compiled or {}


def _open(
    model: dict[str, Any], prefix: str, inputs: Sequence[str], layers: dict[str, Layer]
) -> list[str]:
    """Adds a model's layers to `layers`.

    Args:
      model: Description of the model.
      prefix: Prefix of its layers' names.
      inputs: Names of the layers whose outputs it takes, () for the outermost model.
      layers: Layers found so far.

    Returns:
      The names of the layers whose outputs are the model's.
    """
    config = model["config"]
    entries = config if isinstance(config, list) else config["layers"]
    if model["class_name"] == "Sequential":
        current = list(inputs)
        if not current and entries[0]["class_name"] not in ("InputLayer", *_MODELS):
            current = [_first_input(config, entries[0], prefix, layers)]
        for entry in entries:
            current = _add(entry, prefix, current, (), layers)
        return current
    outputs: dict[str, list[str]] = {}
    starts = [name for name, *_ in _ends(config["input_layers"])]
    outer = dict(zip(starts, inputs, strict=bool(inputs)))
    for entry in entries:
        name, tensors, constants = entry["name"], *_call(entry)
        taken = [outputs[layer][index] for layer, index in tensors]
        if not taken and name in outer:
            taken = [outer[name]]
        outputs[name] = _add(entry, prefix, taken, constants, layers)
    return [outputs[layer][index] for layer, _, index in _ends(config["output_layers"])]


def _first_input(config: Any, entry: dict[str, Any], prefix: str, layers: dict[str, Layer]) -> str:
    """Adds the input layer that a Sequential of Keras 2 does not list; returns its name."""
    built = config.get("build_input_shape") if isinstance(config, dict) else None
    shape = entry["config"].get("batch_input_shape") or built
    name = f"{prefix}input"
    layers[name] = Layer(name, "InputLayer", {"batch_shape": shape}, ())
    return name


def _add(
    entry: dict[str, Any],
    prefix: str,
    inputs: Sequence[str],
    constants: Sequence[Any],
    layers: dict[str, Layer],
) -> list[str]:
    """Adds a layer, or all layers of a nested model; returns the names of its outputs."""
    kind, config = entry["class_name"], entry["config"]
    inner = config["name"] if isinstance(config, dict) and "name" in config else kind
    name = f"{prefix}{entry.get('name') or inner}"
    if kind in _MODELS:
        return _open(entry, f"{name}/", inputs, layers)
    if kind == "TFOpLambda":
        kind = config["function"]
    if name in layers:
        raise WeightsError(f"two layers are called {name!r}")
    layers[name] = Layer(name, kind, config, tuple(inputs), tuple(constants))
    return [name]


def _ends(ends: Any) -> list[list[Any]]:
    """[[layer, call, output], ...]; Keras 3 omits the outer list if there is only one."""
    if isinstance(ends, dict):
        ends = list(ends.values())
    return [ends] if ends and isinstance(ends[0], str) else list(ends)


def _call(entry: dict[str, Any]) -> tuple[list[tuple[str, int]], list[Any]]:
    """The (layer, output) pairs whose tensors a layer takes, and its constants."""
    calls = entry["inbound_nodes"]
    if len(calls) > 1:
        raise WeightsError(f"layer {entry['name']!r} is called {len(calls)} times, not once")
    found = list(_leaves(calls))
    tensors = [leaf for leaf in found if isinstance(leaf, tuple)]
    return tensors, [leaf for leaf in found if not isinstance(leaf, tuple)]


def _leaves(value: Any) -> Iterator[Any]:
    """The tensors, as (layer, output), and the numbers in a layer's call."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            layer, _, index = value["config"]["keras_history"]
            yield layer, index
        else:
            for inner in value.values():
                yield from _leaves(inner)
    elif isinstance(value, list) and [type(x) for x in value[:3]] == [str, int, int]:
        yield value[0], value[2]
        yield from _leaves(value[3:])
    elif isinstance(value, list) and value and all(isinstance(x, int | float) for x in value):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def ancestors(graph: Graph) -> dict[str, frozenset[str]]:
    """The names of all layers that each layer's input depends on, by the layer's name."""
    found: dict[str, frozenset[str]] = {}
    for name, layer in graph.layers.items():
        found[name] = frozenset(layer.inputs).union(*(found[before] for before in layer.inputs))
    return found


def is_idle(layer: Layer) -> bool:
    """Whether a layer returns its input unchanged at inference."""
    augments = layer.kind.startswith("Random") and layer.kind != "RandomCrop"
    linear = layer.kind == "Activation" and layer.config["activation"] == "linear"
    return layer.kind in _IDLE or augments or linear


def refused(path: str | Path, layer: Layer, what: str) -> WeightsError:
    """The error for a layer that has no equivalent here."""
    return WeightsError(
        f"{path}: {layer} {what} and has no equivalent here. Save a model of Rescaling or "
        "Normalization, InceptionV3, GlobalAveragePooling2D and one Dense layer"
    )
