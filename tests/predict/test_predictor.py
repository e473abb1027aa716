"""Inference of any (model, variables, preprocessing), for any number of images and any kind."""

import contextlib
import io

import jax
import numpy as np
import pytest
from PIL import Image

from inception.data.augment import scale_pixels
from inception.data.decode import BadImage
from inception.data.preprocessing import Preprocessing
from inception.network.model import Inception
from inception.predict.predictor import Predictor, _forward, _prepare, has_answer
from tests import processes

pytestmark = pytest.mark.rounding

PREPROCESSING = Preprocessing(75, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


MODEL = Inception(7, width_multiplier=0.05)


@pytest.fixture(scope="module")
def model():
    return MODEL


@pytest.fixture(scope="module")
def variables(model):
    return make_variables(model)


def make_variables(model: Inception) -> dict:
    """Random weights, and statistics that matter, so that every image has another answer."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 75, 75, 3), np.float32))

    def fill(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype("f4")
        return rng.uniform(0.5, 1.5, leaf.shape).astype("f4")

    return jax.tree_util.tree_map_with_path(fill, shapes)


def test_no_type_or_rank_is_promoted(variables):
    """Whoever turns on JAX's checks of them can predict, also with JAX_ENABLE_X64."""
    for checks in (
        [jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict")],
        [jax.enable_x64(True)],
    ):
        with contextlib.ExitStack() as stack:
            for check in checks:
                stack.enter_context(check)
            outputs = jax.eval_shape(_program, variables, np.zeros((2, 75, 75, 3), np.uint8))
        assert {output.dtype.name for output in outputs.values()} == {"float32"}


def _program(variables, images):
    """What a Predictor computes."""
    folded = MODEL.clone(batch_norm_folded=True)
    prepared, kernels = _prepare(variables, model=folded, size=75, aux_head=True)
    settings = {"mean": PREPROCESSING.mean, "std": PREPROCESSING.std}
    endpoints = ("pooled", "aux_logits", "Mixed_6e")
    return _forward(prepared, kernels, images, model=folded, endpoints=endpoints, **settings)


def test_there_is_an_answer_where_all_logits_are_finite():
    logits = np.zeros((6, 3), np.float32)
    logits[1, 2], logits[2, 2], logits[3, 2], logits[4] = np.nan, np.inf, -np.inf, -np.inf
    assert has_answer(logits).tolist() == [True, False, False, False, False, True]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (11, 75, 75, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(model, variables, images):
    """By the network itself, without folding its batch normalization."""
    inputs = scale_pixels(images, PREPROCESSING.mean, PREPROCESSING.std)
    logits, endpoints = jax.jit(lambda v, x: model.apply(v, x, aux_head=True))(variables, inputs)
    return {"logits": logits, **endpoints}


def _close(actual, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (3, 4), (4, 4), (11, 4), (11, 64)])
def test_any_number_of_images(model, variables, images, expected, count, batch_size):
    predict = Predictor(model, variables, PREPROCESSING, batch_size=batch_size)
    outputs = predict(images[:count])
    assert outputs.keys() == {"logits"}
    assert outputs["logits"].shape == (count, 7)
    _close(outputs["logits"], expected["logits"][:count])


def test_no_images_have_no_outputs(model, variables, images):
    outputs = Predictor(model, variables, PREPROCESSING, endpoints=["pooled"])(images[:0])
    assert outputs["logits"].shape == (0, 7)
    assert outputs["pooled"].shape[0] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 75, 75, 3), np.float32),
        np.zeros((2, 99, 99, 3), np.uint8),
        np.zeros((75, 75, 3), np.uint8),
    ],
)
def test_images_of_another_type_or_size_are_refused(model, variables, wrong):
    with pytest.raises(ValueError, match=r"uint8 \[n, 75, 75, 3\]") as error:
        Predictor(model, variables, PREPROCESSING)(wrong)
    assert str(list(wrong.shape)) in str(error.value)


def test_endpoints_come_when_asked_for(model, variables, images, expected):
    names = ["Mixed_5b", "pooled", "aux_logits"]
    outputs = Predictor(model, variables, PREPROCESSING, endpoints=names)(images)
    assert list(outputs) == ["logits", *names]
    for name, values in outputs.items():
        _close(values, expected[name])


def test_an_unknown_endpoint_is_answered_with_those_there(model, variables):
    with pytest.raises(ValueError, match=r"'Mixed_9z'.*'Mixed_5b'.*'aux_logits'.*'pooled'"):
        Predictor(model, variables, PREPROCESSING, endpoints=["Mixed_9z"])


def test_files_bytes_and_pixels_stream_and_the_unreadable_is_reported(
    model, variables, images, tmp_path
):
    def png(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    (tmp_path / "a.png").write_bytes(png(images[0]))
    (tmp_path / "bad.png").write_bytes(b"no image")
    mixed = [str(tmp_path / "a.png"), png(images[1]), str(tmp_path / "bad.png"), images[2]]
    whole = Preprocessing(75, method="resize")
    predict = Predictor(model, variables, whole, batch_size=3)
    reported = []
    parts = list(predict.stream(mixed, on_error=lambda index, error: reported.append(index)))
    assert reported == [2]
    assert np.concatenate([index for index, _ in parts]).tolist() == [0, 1, 3]
    logits = np.concatenate([outputs["logits"] for _, outputs in parts])
    whole_batches = predict(images[:3])
    assert all(each.flags.writeable for each in (whole_batches["logits"], parts[0][1]["logits"]))
    _close(logits, predict(images[:3])["logits"])
    with pytest.raises(BadImage, match=r"bad\.png"):
        list(predict.stream(mixed))


_PROGRAM = """
import json, sys
import jax, numpy as np
import inception
from tests.predict.test_predictor import MODEL, PREPROCESSING, make_variables

predict = inception.Predictor(MODEL, make_variables(MODEL), PREPROCESSING, batch_size=4)
with jax.transfer_guard_device_to_device("disallow"):  # the weights are on each already
    logits = predict(np.load(sys.argv[1]))["logits"]
print(json.dumps({"devices": predict.mesh.size, "logits": logits.tolist()}))
"""


def test_several_devices_share_a_batch(images, expected, tmp_path):
    np.save(tmp_path / "images.npy", images)
    eight = processes.result(processes.start(_PROGRAM, tmp_path / "images.npy", devices=8))
    assert eight["devices"] == 8
    _close(np.array(eight["logits"]), expected["logits"])
