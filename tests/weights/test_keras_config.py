"""What a Keras file states about its input and head is used, or refused by the layer's name."""

import json
import re
import zipfile

import h5py
import numpy as np
import pytest

from inception.weights import WeightsError, keras_config, keras_head
from inception.weights.description import settle
from inception.weights.files import Tensors
from inception.weights.sources import IMAGENET_MEAN as MEAN
from inception.weights.sources import IMAGENET_STD as STD
from inception.weights.sources import SOURCES

NO_TENSORS = Tensors("keras", {}, lambda name: np.zeros(0))


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", reason="Keras writes the descriptions")


@pytest.fixture(scope="module")
def body(keras):
    """Keras's network without pool and head, for images of 75x75: its last grid is 1x1."""
    return keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(75, 75, 3))


@pytest.fixture
def make(keras, body):
    """Makes a model of layers before the network and layers after it."""

    def model(before=(), after=None, shape=(75, 75, 3), **compiled):
        layers = keras.layers
        head = [layers.GlobalAveragePooling2D(), layers.Dense(5, activation="softmax")]
        made = keras.Sequential(
            [keras.Input(shape), *before, body, *(head if after is None else after)]
        )
        if compiled:
            made.compile(**compiled)
        return made

    return model


@pytest.fixture
def say(tmp_path):
    """Writes a model's description, changed, as a file of Keras 3 or 2 has it, and reads it."""

    def describe(model, keras_version=3, change=lambda text: text, tensors=NO_TENSORS, **given):
        content = json.loads(change(model if isinstance(model, str) else model.to_json()))
        if keras_version == 3:
            path = tmp_path / "x.keras"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("config.json", json.dumps(content))
        else:
            path = tmp_path / "x.h5"
            with h5py.File(path, "w") as file:
                file.attrs["model_config"] = json.dumps(as_keras_2(content))
                training = {"loss": (content.get("compile_config") or {}).get("loss")}
                file.attrs["training_config"] = json.dumps(training)
        return keras_config.describe(path, tensors, given)

    return describe


def as_keras_2(entry: dict) -> dict:
    """A description of Keras 3's in the form of Keras 2's."""
    config = dict(entry["config"])
    if "layers" in config:
        config["layers"] = [as_keras_2(layer) for layer in config["layers"]]
        for ends in ("input_layers", "output_layers"):
            if isinstance((config.get(ends) or [[]])[0], str):
                config[ends] = [config[ends]]
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
    entry = {**entry, "config": config}
    tensors = re.findall(
        r'"keras_history": \["([^"]*)", \d+, (\d+)\]', json.dumps(entry.get("inbound_nodes"))
    )
    nodes = [[[layer, 0, int(index), {}] for layer, index in tensors]] if tensors else []
    functions = {"TrueDivide": "math.truediv", "Subtract": "math.subtract"}
    if function := functions.get(entry["class_name"]):
        constant = entry["inbound_nodes"][0]["args"][1]
        nodes = [[tensors[0][0], 0, 0, {"y": constant, "name": None}]]
        entry |= {"class_name": "TFOpLambda", "config": {"name": "tf.op", "function": function}}
    return {**entry, "inbound_nodes": nodes}


BOTH = pytest.mark.parametrize("keras_version", [3, 2])


@BOTH
def test_a_plain_model_says_its_size_and_its_head(make, say, keras_version):
    said = say(make(), keras_version)
    assert said.preprocessing == {"image_size": 75}
    assert (said.activation, said.scales_inside) == ("softmax", False)
    assert said.model == {"batch_norm_epsilon": 1e-3, "batch_norm_decay": 0.99}
    preprocessing, provenance = settle("x", SOURCES["keras"].preprocessing, said, {"mean": MEAN})
    assert (preprocessing.image_size, preprocessing.mean) == (75, MEAN)
    assert provenance["preprocessing.image_size"] == said.where
    assert provenance["preprocessing.mean"] == "given"
    assert provenance["preprocessing.std"] == "assumed"


@pytest.mark.rounding
@BOTH
@pytest.mark.parametrize(
    ("layers", "mean", "std"),
    [
        (lambda k: [k.layers.Rescaling(1 / 127.5, offset=-1)], 0.5, 0.5),
        (lambda k: [k.layers.Rescaling(1 / 255)], 0.0, 1.0),
        (
            lambda k: [
                k.layers.RandomFlip(),
                k.layers.Rescaling(1 / 255),
                k.layers.Normalization(mean=MEAN, variance=[s**2 for s in STD]),
                k.layers.GaussianNoise(0.1),
            ],
            MEAN,
            STD,
        ),
    ],
)
def test_scaling_inside_the_model_is_taken(keras, make, say, keras_version, layers, mean, std):
    said = say(make(layers(keras)), keras_version)
    assert said.scales_inside
    np.testing.assert_allclose(said.preprocessing["mean"], np.broadcast_to(mean, 3), atol=1e-8)
    np.testing.assert_allclose(said.preprocessing["std"], np.broadcast_to(std, 3), atol=1e-8)


@BOTH
def test_operations_that_scale_are_taken(keras, body, say, keras_version):
    images = keras.Input((75, 75, 3))
    scaled = keras.applications.inception_v3.preprocess_input(images)
    pooled = keras.layers.GlobalAveragePooling2D()(body(scaled))
    said = say(keras.Model(images, keras.layers.Dense(2)(pooled)), keras_version)
    assert said.preprocessing["mean"] == said.preprocessing["std"] == (0.5, 0.5, 0.5)


@pytest.mark.rounding
def test_what_a_normalization_has_learned_is_taken(keras, make, say):
    learned = {
        "normalization/mean": np.full(3, 120.0),
        "normalization/variance": np.full(3, 3600.0),
    }
    shapes = {name: array.shape for name, array in learned.items()}
    tensors = Tensors("keras", shapes, learned.__getitem__)
    model = make([keras.layers.Normalization()])
    said = say(model, tensors=tensors)
    assert said.tensors == tuple(learned)
    np.testing.assert_allclose(said.preprocessing["mean"], 120 / 255, atol=1e-8)
    np.testing.assert_allclose(said.preprocessing["std"], 60 / 255, atol=1e-8)
    with pytest.raises(WeightsError, match=r"normalization.*no mean and variance.*adapt"):
        say(model)


def test_a_resizing_says_the_size_and_the_interpolation(keras, make, say):
    resizing = keras.layers.Resizing(75, 75, interpolation="nearest")
    said = say(make([resizing], shape=(None, None, 3)))
    assert said.preprocessing == {
        **{"image_size": 75, "method": "resize", "interpolation": "nearest"}
    }
    with pytest.raises(WeightsError, match=r"100x100.*75x75.*--image_size"):
        say(make([resizing], shape=(100, 100, 3)))
    assert say(make([resizing], shape=(100, 100, 3)), image_size=75).preprocessing == {
        **{"method": "resize", "interpolation": "nearest"}
    }


@BOTH
@pytest.mark.parametrize(
    ("activations", "loss", "expected"),
    [
        (["softmax"], None, "softmax"),
        (["sigmoid"], None, "sigmoid"),
        (["linear", "sigmoid"], None, "sigmoid"),
        (["linear"], "binary_crossentropy", "sigmoid"),
        (["linear"], "sparse_categorical_crossentropy", "softmax"),
        (["sigmoid"], "categorical_crossentropy", "sigmoid"),
        (["linear"], None, ""),
    ],
)
def test_heads(keras, make, say, keras_version, activations, loss, expected):
    layers, (first, *others) = keras.layers, activations
    after = [layers.GlobalAveragePooling2D(), layers.Dropout(0.3), layers.Flatten()]
    after += [layers.Dense(5, activation=first), *map(layers.Activation, others)]
    said = say(make(after=after, **({"loss": loss} if loss else {})), keras_version)
    assert (said.activation, said.model["dropout_rate"]) == (expected, 0.3)


def test_features_alone_have_no_activation(keras, make, say):
    assert say(make(after=[])).activation == ""
    assert say(make(after=[keras.layers.GlobalAveragePooling2D()])).activation == ""


def test_an_average_over_the_whole_grid_is_the_pool(keras, make, say):
    layers = keras.layers
    after = [layers.AveragePooling2D((1, 1)), layers.Flatten(), layers.Dense(5)]
    assert say(make(after=after)).preprocessing == {"image_size": 75}
    grids = {size: keras_head.last_grid(size) for size in (75, 139, 150, 299)}
    assert grids == {75: 1, 139: 3, 150: 3, 299: 8}


REFUSED = {
    "maxima": ("after", "global_max_pooling2d", lambda L: [L.GlobalMaxPooling2D(), L.Dense(5)]),
    "no pool": ("after", "flatten", lambda L: [L.Flatten(), L.Dense(5)]),
    "partial": ("after", "average_pooling2d", lambda L: [L.AveragePooling2D(2, padding="same")]),
    "hidden": ("head", "is a second Dense", lambda L: [L.Dense(9, activation="relu"), L.Dense(5)]),
    "regression": ("head", "tanh", lambda L: [L.Dense(5, activation="tanh")]),
    "normalized": ("head", "batch_normalization", lambda L: [L.BatchNormalization(), L.Dense(5)]),
    "cropped": ("before", "center_crop", lambda L: [L.CenterCrop(75, 75)]),
    "random crop": ("before", "random_crop", lambda L: [L.RandomCrop(75, 75)]),
    "own code": ("before", "lambda", lambda L: [L.Lambda(lambda x: x[..., ::-1])]),
    "aspect": ("before", "resizing", lambda L: [L.Resizing(75, 75, crop_to_aspect_ratio=True)]),
    "inverted": (
        *("before", "normalization"),
        lambda L: [L.Normalization(mean=0.0, variance=1.0, invert=True)],
    ),
    "not pixels": ("before", "--mean", lambda L: [L.Rescaling(2.0, offset=-1)]),
    "lanczos": ("before", "--interpolation", lambda L: [L.Resizing(75, 75, "lanczos3")]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_over_is_refused_by_name(keras, make, say, name):
    place, named, layers = REFUSED[name]
    layers = layers(keras.layers)
    if place == "head":
        layers = [keras.layers.GlobalAveragePooling2D(), *layers]
    with pytest.raises(WeightsError, match=named) as raised:
        say(make(layers) if place == "before" else make(after=layers))
    assert "x.keras" in str(raised.value)


def test_flags_lift_the_refusals_that_they_answer(keras, make, say):
    scaled = make([keras.layers.Rescaling(2.0, offset=-1)])
    assert say(scaled, mean=MEAN, std=STD).preprocessing == {"image_size": 75}
    with pytest.raises(WeightsError, match="75x100"):
        say(make(), change=lambda text: text.replace("75, 75, 3", "75, 100, 3"))


def test_models_of_several_inputs_or_outputs_are_refused(keras, body, say):
    layers = keras.layers
    pooled = layers.GlobalAveragePooling2D()(body.output)
    heads = [layers.Dense(n)(pooled) for n in (2, 3)]
    with pytest.raises(WeightsError, match="1 inputs and 2 outputs"):
        say(keras.Model(body.input, heads))
    more = keras.Input((4,))
    joined = layers.Dense(2)(layers.Concatenate()([pooled, more]))
    with pytest.raises(WeightsError, match="2 inputs and 1 outputs"):
        say(keras.Model([body.input, more], joined))
    maxima = layers.GlobalMaxPooling2D()(body.output)
    both = layers.Concatenate(name="both")([pooled, maxima])
    with pytest.raises(WeightsError, match="global_"):
        say(keras.Model(body.input, layers.Dense(2)(both)))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"activation": "relu"', '"activation": "elu"', "inside the network has activation elu"),
        ('"epsilon": 0.001', '"epsilon": 0.01', r"epsilon, \[0.001, 0.01\]"),
        ('"momentum": 0.99', '"momentum": 0.9', r"momentum, \[0.9, 0.99\]"),
        ('"keras_history"', '"history"', "cannot be read.*save_weights"),
        ('"class_name": "MaxPooling2D"', '"class_name": "Lambda"', "max_pooling2d.*Lambda"),
    ],
)
def test_another_network_inside_is_refused(make, say, old, new, named):
    with pytest.raises(WeightsError, match=named):
        say(make(), change=lambda text: text.replace(old, new, 1))


@pytest.mark.parametrize("key", ["config", "layers", "inbound_nodes", "output_layers", "epsilon"])
def test_descriptions_that_lack_something_are_refused(make, say, key):
    with pytest.raises(WeightsError, match=r"x\.keras describes .* cannot be read"):
        say(make(), change=lambda text: text.replace(f'"{key}":', '"other":'))


def test_damaged_descriptions_are_named(tmp_path):
    path = tmp_path / "y.keras"
    for content in (b"{", b"[]", b"null", b'{"class_name": "Sequential", "config": 3}'):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", content)
        with pytest.raises(WeightsError, match=r"y\.keras.*cannot be read"):
            keras_config.describe(path, NO_TENSORS, {})
    path.write_bytes(path.read_bytes().replace(b"Sequential", b"SequentiaX"))
    with pytest.raises(WeightsError, match=r"y\.keras.*cannot be read"):  # of its checksum
        keras_config.describe(path, NO_TENSORS, {})


def test_one_epsilon_of_all_normalizations_is_taken(make, say):
    said = say(make(), change=lambda text: text.replace('"epsilon": 0.001', '"epsilon": 0.01'))
    assert said.model["batch_norm_epsilon"] == 0.01


def test_models_that_only_code_describes_say_nothing(say):
    said = say(json.dumps({"class_name": "MyModel", "config": {}}))
    assert (said.preprocessing, said.model, said.activation) == ({}, {}, "")
