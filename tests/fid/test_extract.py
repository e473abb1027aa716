"""The layers that metrics are defined on, and the arithmetic that they are computed in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.fid import bridge, resize
from inception.fid.bridge import UserError
from inception.fid.extract import LAYERS, Extractor, to_uint8
from inception.fid.protocols import PROTOCOLS
from inception.ops.convolution import is_onednn_used
from inception.ops.platforms import compiled_for
from tests import processes
from tests.fid.networks import MODEL, difference, loaded, pictures

ALL = (*LAYERS, "Mixed_5b")
_PRODUCTS = ("dot_general", "conv_general_dilated", "onednn_output")


@pytest.fixture(scope="module")
def extract():
    return Extractor(loaded(), layers=ALL)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(pictures(5, 64, 80))


@pytest.fixture(scope="module")
def features(extract, images):
    return extract.features(images)


@pytest.mark.rounding
def test_layers_are_those_of_the_papers(features, images):
    """Read off the network itself, with its batch normalization and its bias."""
    model, variables, _ = loaded()
    inputs = resize.to_input(images, PROTOCOLS["tensorflow"])
    logits, endpoints = jax.jit(model.apply)(variables, inputs)
    assert difference(features["pooled"], endpoints["pooled"]) <= 1e-5
    bias = variables["params"]["Logits"]["bias"]
    assert np.abs(bias).max() > 0.1
    assert difference(features["logits"], logits - bias) <= 1e-5
    for name, stage in (
        ("64", "MaxPool_3a_3x3"),
        ("192", "MaxPool_5a_3x3"),
        ("768", "Mixed_6e"),
        ("Mixed_5b", "Mixed_5b"),
    ):
        assert difference(features[name], np.mean(endpoints[stage], axis=(1, 2))) <= 1e-5
    # sFID: [17, 17, 7] flattened in the order height, width, channel.
    assert features["spatial"].shape == (5, 2023)
    grid = np.asarray(features["spatial"]).reshape(5, 17, 17, 7)
    assert difference(grid, endpoints["Mixed_6d"][..., :7]) <= 1e-5


def test_features_depend_on_the_image(features):
    for name in ALL:
        spread = np.std(features[name], axis=0).max()
        assert spread > 1e-3 * np.abs(features[name]).max()


@pytest.mark.rounding
def test_features_do_not_depend_on_the_batch(extract, images, features):
    parts = [extract.features(images[:1]), extract.features(images[1:])]
    for name in ALL:
        assert difference(np.concatenate([part[name] for part in parts]), features[name]) <= 1e-6


_SHARDED = """
import jax, json, numpy as np
from inception.fid.bridge import make_mesh, split
from inception.fid.extract import Extractor
from tests.fid.networks import loaded, pictures
mesh = make_mesh()
extract = Extractor(loaded(), layers=("pooled",), mesh=mesh)
images = jax.device_put(pictures(6, 64, 80), split(mesh))
step = jax.jit(lambda extract, images: extract.features(images)["pooled"])
text = step.lower(extract, images).compile().as_text()
print(json.dumps([text.count("all-reduce") + text.count("all-gather"),
                  np.asarray(step(extract, images)).tolist()]))
"""


@pytest.mark.rounding
def test_features_of_a_batch_on_two_devices_are_those_of_one(extract):
    messages, features = processes.result(processes.start(_SHARDED, devices=2))
    assert messages == 0
    assert difference(features, extract.features(pictures(6, 64, 80))["pooled"]) <= 2e-6


def _products(jaxpr):
    """The precision of every product in a program, however deep."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in _PRODUCTS:
            yield equation.primitive.name, equation.params.get("precision")
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns"):
                    yield from _products(inner)
                elif hasattr(getattr(inner, "jaxpr", None), "eqns"):
                    yield from _products(inner.jaxpr)


@pytest.mark.parametrize("outer", ["default", "bfloat16"])
def test_every_product_is_of_full_precision_also_in_a_callers_jit(outer):
    images = jnp.zeros((7, 50, 50, 3), jnp.uint8)  # of a shape that was not traced for a CPU

    def step(extract, images):
        return extract.features(images), jnp.ones((2, 2)) @ jnp.ones((2, 2))

    with compiled_for("tpu"), jax.default_matmul_precision(outer):
        extract = Extractor(loaded(), layers=ALL)
        found = list(_products(jax.make_jaxpr(step)(extract, images).jaxpr))
    *ours, (_, callers) = found
    kinds = [name for name, _ in ours]
    assert kinds.count("conv_general_dilated") > 60
    assert kinds.count("dot_general") == 3  # two of the resize, one of the logits
    highest = jax.lax.Precision.HIGHEST
    assert {precision for _, precision in ours} == {(highest, highest)}
    assert callers != (highest, highest)


def test_another_precision_is_left_to_the_platform():
    images = jnp.zeros((9, 51, 51, 3), jnp.uint8)
    with compiled_for("tpu"):
        extract = Extractor(loaded(), precision="default")
        found = list(_products(jax.make_jaxpr(Extractor.features)(extract, images).jaxpr))
    convolutions = {precision for name, precision in found if name.startswith("conv")}
    assert convolutions == {None}
    assert extract.origin("pooled").precision == "default"


def test_weights_for_another_platform_are_refused_and_not_misread(extract, images, features):
    """Kernels in the layout of oneDNN have the shape of plain ones."""
    if not is_onednn_used():
        pytest.skip("without oneDNN all platforms have plain kernels")
    with compiled_for("tpu"):
        with pytest.raises(UserError, match=r"layout 'onednn', and convolutions.* need 'plain'"):
            jax.eval_shape(extract.features, images)
        plain = Extractor(loaded(), layers=["64"])
    with pytest.raises(UserError, match=r"layout 'plain', and convolutions.* need 'onednn'"):
        plain.features(images)


def test_each_kernel_is_kept_once(extract):
    kept = [leaf for leaf in jax.tree.leaves(extract.variables["params"]) if leaf.ndim > 2]
    assert len(kept) > 60
    assert not sum(leaf.nbytes for leaf in kept)


@pytest.mark.rounding
def test_weights_are_an_argument_of_a_callers_program(extract, images):
    step = jax.jit(lambda extract, images: extract.features(images))
    assert len(step.lower(extract, images).as_text()) < 1e6
    again = jax.tree.unflatten(*jax.tree.flatten(extract)[::-1])
    assert again.settings == extract.settings
    assert difference(step(again, images)["pooled"], extract.features(images)["pooled"]) <= 1e-6


def test_other_weights_need_no_other_program(images, features, monkeypatch):
    monkeypatch.setattr(bridge, "endpoints", None)  # it would be called to trace another
    other = Extractor(loaded(1), layers=ALL)
    assert other.origin("pooled").weights != Extractor(loaded()).origin("pooled").weights
    assert np.abs(other.features(images)["pooled"] - features["pooled"]).max() > 0.01


@pytest.mark.rounding
def test_a_network_trained_in_bfloat16_computes_in_float32(images, features):
    model, variables, _ = loaded()
    extract = Extractor((model.clone(dtype=jnp.bfloat16), variables), layers=("pooled",))
    assert difference(extract.features(images)["pooled"], features["pooled"]) <= 1e-6


def test_the_digest_is_of_what_decides_about_features():
    model, variables, _ = loaded()
    sha256 = bridge.digest(model, variables)
    aux_head = {**variables["params"], "AuxLogits": {"bias": np.ones(3)}}
    assert bridge.digest(model, {**variables, "params": aux_head}) == sha256
    assert bridge.digest(model.clone(dropout_rate=0.5), variables) == sha256
    assert bridge.digest(model.clone(mixed_7c_pool="average"), variables) != sha256
    changed = jax.tree.map(np.copy, variables)
    changed["params"]["Logits"]["kernel"][0, 0] += 1
    assert bridge.digest(model, changed) != sha256
    assert Extractor(loaded()).origin("pooled").weights == sha256


def test_fids_network_is_recognized():
    assert bridge.is_fids(MODEL)
    assert not bridge.is_fids(MODEL.clone(mixed_7c_pool="average"))
    assert not bridge.is_fids(MODEL.clone(num_classes=1000))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"layers": ["Mixed_9z"]}, "layer 'Mixed_9z' is unknown.*'pooled'"),
        ({"layers": []}, "layer '' is unknown"),
        ({"protocol": "jax-fid"}, "protocol 'jax-fid' is unknown"),
        ({"precision": "high"}, "precision 'high' must be one of"),
    ],
)
def test_what_is_unknown_is_answered_with_what_there_is(how, message):
    with pytest.raises(UserError, match=message):
        Extractor(loaded(), **how)


def test_a_layer_may_have_the_names_of_tools():
    extract = Extractor(loaded(), layers=["2048", "pooled", "Mixed_6e"])
    assert extract.settings.layers == ("pooled", "768")
    assert extract.sizes == {"pooled": 108, "768": 64}
    assert dataclasses.astuple(extract.origin("768"))[:2] == ("tensorflow", "768")


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 1), "u1"),
    ],
)
def test_other_images_are_refused(extract, images):
    with pytest.raises(ValueError, match=r"must be uint8 \[batch, height, width, 3\]"):
        extract.features(images)


def test_pixels_are_rounded_as_generators_do():
    values = jnp.asarray([-2.0, -1.0, 0.0, 0.5, 127 / 128, 1.0, 3.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 191, 254, 255, 255]
    assert to_uint8(values).dtype == jnp.uint8
