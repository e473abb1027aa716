"""Keras's layers inside the network are this network's own, or refused by name and value."""

import copy
import json
import re
import zipfile
from collections import defaultdict

import numpy as np
import pytest

from inception.weights import WeightsError, keras_body, keras_config, keras_graph
from inception.weights.files import Tensors

NO_TENSORS = Tensors("keras", {}, lambda name: np.zeros(0))
NUMBERED = re.compile(
    r'"(conv2d|batch_normalization|activation|max_pooling2d|average_pooling2d)(?:_(\d+))?"(?!:)'
)
USUAL = {"batch_norm_epsilon": 1e-3, "batch_norm_decay": 0.99}


@pytest.fixture(scope="module")
def network():
    """Keras's description of its network; every kind of layer is numbered by creation from 0."""
    keras = pytest.importorskip("keras", reason="Keras writes the description")
    model = keras.applications.InceptionV3(weights=None, include_top=False)
    text, numbers = model.to_json(), defaultdict(set)
    for kind, number in NUMBERED.findall(text):
        numbers[kind].add(int(number or 0))

    def renumber(found):
        return f'"{found[1]}_{int(found[2] or 0) - min(numbers[found[1]])}"'

    return json.loads(NUMBERED.sub(renumber, text))


@pytest.fixture
def read(network, tmp_path):
    """Reads a file with the description after a change of its layers, which have names."""

    def describe(change=lambda layers: None, rename=lambda text: text):
        changed = copy.deepcopy(network)
        change({layer["name"]: layer for layer in changed["config"]["layers"]})
        path = tmp_path / "x.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", rename(json.dumps(changed)))
        return keras_config.describe(path, NO_TENSORS, {})

    return describe


def put(name, **arguments):
    """Changes arguments of a layer."""
    return lambda layers: layers[name]["config"].update(arguments)


def kind(name, kind, **arguments):
    """Changes the class and arguments of a layer."""
    return lambda layers: layers[name].update(
        class_name=kind, config=layers[name]["config"] | arguments
    )


def rewire(reader, old, new):
    """Makes a layer read another one."""

    def change(layers):
        text = json.dumps(layers[reader]["inbound_nodes"])
        assert f'"{old}"' in text
        layers[reader]["inbound_nodes"] = json.loads(text.replace(f'"{old}"', f'"{new}"'))

    return change


def reverse(reader):
    """Makes a layer read its inputs in the opposite order."""
    return lambda layers: layers[reader]["inbound_nodes"][0]["args"][0].reverse()


def exchange(first, second):
    """Makes two layers each other, in their places."""

    def change(layers):
        one, two = layers[first], layers[second]
        for key in ("class_name", "config"):
            one[key], two[key] = two[key], one[key]

    return change


def test_kerass_own_network_is_accepted(read):
    assert read().model == USUAL


@pytest.mark.parametrize(
    "change",
    [
        put("conv2d_0", strides=2, kernel_size=3, dilation_rate=1),
        put("max_pooling2d_0", strides=2, pool_size=3),
        put("conv2d_3", padding="same"),  # of a 1x1 filter
        kind("activation_7", "ReLU", activation="linear", max_value=None, negative_slope=0.0),
    ],
)
def test_another_way_to_write_the_same_is_accepted(read, change):
    assert read(change).model == USUAL


def test_names_of_layers_do_not_matter(read):
    def rename(text):
        return NUMBERED.sub(r'"\2 of \1"', text)

    assert read(rename=rename).model == USUAL
    with pytest.raises(WeightsError, match=r"'0 of conv2d' .* strides=\(1, 1\)"):
        read(put("conv2d_0", strides=[1, 1]), rename)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("conv2d_0", strides=[1, 1]), r"'conv2d_0' .* strides=\(1, 1\), .* \(2, 2\)"),
        (put("conv2d_93", strides=[1, 2]), r"'conv2d_93' .* strides=\(1, 2\), .* \(1, 1\)"),
        (
            put("conv2d_7", dilation_rate=[2, 2]),
            r"'conv2d_7' .* dilation_rate=\(2, 2\), .*1, 1",
        ),
        (put("conv2d_2", padding="valid"), "'conv2d_2' .* padding='valid', InceptionV3 'same'"),
        (put("conv2d_26", padding="same"), "'conv2d_26' .* padding='same', InceptionV3 'valid'"),
        (put("conv2d_32", kernel_size=[7, 1]), r"'conv2d_32' .* kernel_size=\(7, 1\), .* \(1, 7\)"),
        (put("max_pooling2d_0", strides=[1, 1]), r"'max_pooling2d_0' .* strides=\(1, 1\), .*2, 2"),
        (put("max_pooling2d_3", padding="same"), "'max_pooling2d_3' .* padding='same', .* 'valid'"),
        (
            put("average_pooling2d_1", pool_size=[5, 5]),
            r"'average_pooling2d_1' .*=\(5, 5\)",
        ),
        (kind("average_pooling2d_0", "MaxPooling2D"), "'average_pooling2d_0' .*AveragePooling2D"),
        (kind("max_pooling2d_1", "AveragePooling2D"), "'max_pooling2d_1' .* MaxPooling2D"),
        (
            kind("activation_0", "ReLU", activation="linear", max_value=6.0),
            "'activation_0' .* plain",
        ),
        (exchange("activation_9", "batch_normalization_9"), "'activation_9' .* ReLU"),
        (
            rewire("conv2d_1", "activation_0", "batch_normalization_0"),
            "'batch_normalization_0' .* ReLU",
        ),
        (reverse("mixed0"), "takes .* what InceptionV3 takes"),
        (rewire("conv2d_91", "activation_90", "activation_86"), "'conv2d_91' .* takes"),
    ],
)
def test_a_layer_that_computes_something_else_is_refused(read, change, named):
    with pytest.raises(WeightsError, match=named) as raised:
        read(change)
    assert "x.keras" in str(raised.value)


def test_no_convolution_or_pool_is_overlooked(read, tmp_path):
    read()
    _, *layers = keras_graph.read(tmp_path / "x.keras").layers.values()  # without the input
    chosen = [layer for layer in layers if "strides" in layer.config]
    assert len(chosen) == 94 + 13
    for layer in chosen:
        strides = layer.config["strides"]
        layer.config["strides"] = [3, 3]
        with pytest.raises(WeightsError, match=rf"'{layer.name}' .* strides=\(3, 3\)"):
            keras_body.read_body("x.keras", layers)
        layer.config["strides"] = strides
    assert keras_body.read_body("x.keras", layers) == USUAL
