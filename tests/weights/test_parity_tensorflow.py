"""Our network with imported weights computes what Keras and TensorFlow compute."""

import zipfile

import jax
import numpy as np
import pytest

from inception import weights
from inception.predict.predictor import Predictor
from inception.weights import names, reference, verify
from inception.weights.__main__ import main
from tests import oracles
from tests.oracles import in_float64, random_images
from tests.weights.parity import IN_FLOAT64, OUTPUTS, after_training, difference, gradients_of

pytestmark = pytest.mark.rounding

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def keras_network():
    """Makes Keras's network for a size, with random weights, in float32 or another type."""
    keras = pytest.importorskip("keras", reason="Keras is the oracle")

    def set_type(dtype: str):
        keras.config.set_floatx(dtype)  # of the input
        keras.config.set_dtype_policy(dtype)  # of the layers

    def make(size: int, classes: int = 13, dtype: str = "float32"):
        set_type(dtype)
        keras.layers.Conv2D(1, 1)  # the numbers in names need not begin with 0
        network = reference.keras_network((size, size, 3), classes)
        rng = np.random.default_rng(0)
        for variable in network.weights:
            variable.assign(oracles.random_array(variable.path, variable.shape, rng))
        return network

    yield make
    set_type("float32")


@pytest.mark.parametrize(
    ("size", "batch"),
    [(139, 2), pytest.param(75, 3, marks=SLOW), pytest.param(299, 1, marks=SLOW)],
)
def test_kerass_endpoints(keras_network, tmp_path, size, batch):
    network, images = keras_network(size), random_images(size, batch)
    network.save(tmp_path / "whole.h5")
    network.save(tmp_path / "whole.keras")
    network.save_weights(tmp_path / "only.weights.h5")
    imported = [weights.import_weights(file) for file in sorted(tmp_path.iterdir())]
    pretrained = imported[0]
    assert (pretrained.source, pretrained.model.num_classes) == ("keras", 13)
    for other in imported[1:]:
        jax.tree.map(np.testing.assert_array_equal, other.variables, pretrained.variables)
    outputs = type(network)(network.inputs, reference.keras_outputs(network))
    theirs = {name: np.asarray(array) for name, array in outputs(images, training=False).items()}
    ours = verify.our_endpoints(pretrained.model, pretrained.variables, images)
    assert difference("keras", "endpoints, logits", images, ours, theirs) <= OUTPUTS


@pytest.mark.parametrize("include_top", [True, False])
def test_keras_applications_with_and_without_its_head(keras_network, tmp_path, include_top):
    import keras

    network = keras.applications.InceptionV3(
        weights=None, include_top=include_top, pooling="avg", classifier_activation=None
    )
    network.save_weights(tmp_path / "x.weights.h5")
    pretrained = weights.import_weights(tmp_path / "x.weights.h5")
    logits = pretrained.variables["params"]["Logits"]["kernel"]
    assert logits.shape == (2048, 1000 if include_top else 1)
    assert bool(pretrained.labels) == include_top
    if include_top:
        np.testing.assert_array_equal(logits, network.get_layer("predictions").kernel)


@pytest.fixture(scope="module")
def whole_model(keras_network, tmp_path_factory):
    """A compiled Keras model that scales pixels itself, in a .keras file, and its last bias."""
    import keras

    body = keras.Model((network := keras_network(75)).input, network.get_layer("mixed10").output)
    layers = keras.layers
    model = keras.Sequential(
        [
            *(keras.Input((75, 75, 3)), layers.RandomFlip(), layers.Rescaling(1 / 100, -1.0)),
            *(body, layers.GlobalAveragePooling2D(), layers.Dropout(0.3)),
            layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(0, 0.01, 0)),
            layers.Activation("sigmoid"),
        ]
    )
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    model.evaluate(np.zeros((1, 75, 75, 3)), np.zeros((1, 4)), verbose=0)  # metrics have variables
    path = tmp_path_factory.mktemp("keras") / "x.keras"
    model.save(path)
    return model, path


def test_a_keras_model_is_imported_as_it_stands(whole_model):
    model, path = whole_model
    pretrained = weights.import_weights(path)
    assert pretrained.preprocessing.image_size == 75
    assert pretrained.model.dropout_rate == 0.3
    pixels = np.random.default_rng(0).integers(0, 256, (2, 75, 75, 3), np.uint8)
    logits = Predictor(pretrained.model, pretrained.variables, pretrained.preprocessing)(pixels)
    ours = np.asarray({"sigmoid": jax.nn.sigmoid}[pretrained.activation](logits["logits"]))
    theirs = np.asarray(model(pixels.astype(np.float32), training=False))
    assert theirs.std() > 0.01
    assert verify.difference("probabilities", ours, theirs).relative < OUTPUTS


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        ([], True),
        (["--std=0.3"], False),
        pytest.param(["--activation=softmax"], False, marks=SLOW),
    ],
)
def test_verify_runs_the_model_that_the_file_holds(whole_model, capsys, flags, same):
    assert main(["verify", "auto", str(whole_model[1]), *flags]) == (0 if same else 1)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("Mixed_5b", "logits", "probabilities"))
    assert ("DIFFERENT" in printed) != same


@SLOW
def test_a_folder_of_kerass_is_a_model_too(whole_model, tmp_path):
    with zipfile.ZipFile(whole_model[1]) as archive:
        archive.extractall(tmp_path)
    pretrained = weights.load_any(tmp_path)
    assert (pretrained.preprocessing.image_size, pretrained.activation) == (75, "sigmoid")
    assert max(d.relative for d in verify.verify(pretrained, tmp_path, batch=1)) < OUTPUTS


@SLOW
@pytest.mark.usefixtures("x64")
def test_kerass_gradients(keras_network, tmp_path):
    import tensorflow as tf

    keras_network(75).save_weights(tmp_path / "x.weights.h5")
    network = keras_network(75, dtype="float64")
    parameters = network.trainable_variables
    images = in_float64(random_images(75, 1))
    cotangent = np.random.default_rng(0).normal(size=(1, 13))
    with tf.GradientTape() as tape:
        inputs = tf.Variable(images)
        loss = tf.reduce_sum(network(inputs, training=False) * cotangent)
    values = [variable.value for variable in parameters]
    of_images, *gradients = tape.gradient(loss, [inputs, *values])
    pretrained = weights.import_weights(tmp_path / "x.weights.h5")
    ours = gradients_of(pretrained, "logits", images, cotangent)
    by_name = by_keras_name(parameters, gradients)
    table = names.table(names.KERAS, ours.keys() - {"images"})
    theirs = {name: by_name[at] for name, at in table.items()} | {"images": np.asarray(of_images)}
    assert difference("keras", "gradients of logits", images, ours, theirs) <= IN_FLOAT64


@SLOW
@pytest.mark.usefixtures("x64")
def test_a_training_step_of_kerass(keras_network, tmp_path):
    keras_network(139).save_weights(tmp_path / "x.weights.h5")
    network, images = keras_network(139, dtype="float64"), in_float64(random_images(139, 4))
    pretrained = weights.import_weights(tmp_path / "x.weights.h5")
    ends, new = after_training(pretrained, images, aux_head=False)
    outputs = type(network)(network.inputs, reference.keras_outputs(network))
    theirs = {name: np.asarray(array) for name, array in outputs(images, training=True).items()}
    assert difference("keras", "endpoints in training", images, ends, theirs) <= IN_FLOAT64
    statistics = network.non_trainable_variables
    by_name = by_keras_name(statistics, [variable.numpy() for variable in statistics])
    updated = {mine: by_name[name] for mine, name in names.table(names.KERAS, new).items()}
    assert difference("keras", "new batch statistics", images, new, updated) <= IN_FLOAT64


def by_keras_name(variables, arrays) -> dict:
    """Arrays of Keras's variables by the names of names.KERAS, whose numbers begin with 0."""
    found = {}
    for kind in ("conv2d", "batch_normalization", "predictions"):
        layers = sorted(
            {v.path.split("/")[0] for v in variables if v.path.startswith(kind)},
            key=lambda layer: (len(layer), layer),
        )
        for number, layer in enumerate(layers):
            ours = kind if kind == "predictions" else f"{kind}_{number}"
            for variable, array in zip(variables, arrays, strict=True):
                owner, _, weight = variable.path.partition("/")
                if owner == layer:
                    found[f"{ours}/{weight}"] = np.asarray(array)
    return found


@pytest.mark.parametrize(
    ("source", "v2"),
    [pytest.param("slim", False, marks=pytest.mark.slow), ("tensorflow-inception", True)],
)
def test_tensorflows_checkpoints(tmp_path, source, v2):
    from tests import tensorflow_oracle

    images = random_images(299, 1)
    answers = tensorflow_oracle.write(source, tmp_path / "model.ckpt", images, 1001, v2=v2)
    answers = [(True, answers)] if source == "slim" else zip((False, True), answers, strict=True)
    for ema, theirs in answers:
        pretrained = weights.import_weights(tmp_path / "model.ckpt", ema=ema)
        assert (pretrained.source, pretrained.model.num_classes) == (source, 1000)
        for head in ("logits", "aux_logits"):
            theirs[head] = theirs[head][:, 1:]  # class 0 is the background
        ours = verify.our_endpoints(pretrained.model, pretrained.variables, images)
        what = f"endpoints, logits ({'V2' if v2 else 'V1'}{', averages' if v2 and ema else ''})"
        assert difference(source, what, images, ours, theirs) <= OUTPUTS


@SLOW
def test_the_command_says_whether_the_networks_agree(keras_network, tmp_path, capsys):
    file = tmp_path / "x.weights.h5"
    keras_network(299).save_weights(file)
    assert main(["verify", "keras", str(file)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*names.BLOCKS, "pooled", "logits", "keras"))
    assert "DIFFERENT" not in printed
