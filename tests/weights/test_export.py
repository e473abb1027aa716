"""Exported programs compute what the network computes; nothing wrong is ever written."""

import dataclasses
import importlib
import importlib.util
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import inception
from inception import command_line, weights
from inception.data.preprocessing import Preprocessing
from inception.weights import Pretrained, WeightsError, verify
from inception.weights.__main__ import main
from inception.weights.export import export
from inception.weights.export.programs import program
from inception.weights.export.rebuild import rebuild
from inception.weights.pretrained import shapes_of
from inception.workdir.restore import restore_run
from tests.oracles import random_array

SIZE, CLASSES = 107, 5  # the last grid is 2x2
SCALING = Preprocessing(image_size=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
PROGRAMS = {"stablehlo": "x.stablehlo", "savedmodel": "x", "onnx": "x.onnx"}
NEEDS = {"savedmodel": ("tensorflow",), "onnx": ("onnx", "onnxruntime")}


def random_weights(preprocessing=SCALING, **fields) -> Pretrained:
    """Of the smallest width, unless the fields say another."""
    model = inception.Inception(CLASSES, **{"width_multiplier": 0.05, **fields})
    rng = np.random.default_rng(0)
    shapes = shapes_of(model, preprocessing.image_size)
    arrays = {name: random_array(name, shape, rng) for name, shape in shapes.items()}
    labels = tuple("abcde")
    return Pretrained(model, unflatten_dict(arrays, sep="/"), preprocessing, labels, "x", "")


@pytest.fixture(scope="module")
def small() -> Pretrained:
    return random_weights()


def skip_without(format: str) -> None:
    for package in NEEDS.get(format, ()):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{format} needs {package}: requirements-export.txt")


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The program's logits, by the library whose format it is."""
    if path.suffix == ".stablehlo":
        return jax.export.deserialize(bytearray(path.read_bytes())).call(images)
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(["logits"], {"images": images})[0]
    import tensorflow as tf

    serve = tf.saved_model.load(path).signatures["serving_default"]
    return serve(images=tf.constant(images))["logits"].numpy()


@pytest.fixture(scope="module")
def sample(small) -> dict[str, np.ndarray]:
    """An image as pixels and scaled, and the network's logits of it."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    scaled = ((pixels / 255.0 - SCALING.mean) / SCALING.std).astype(np.float32)
    ours = verify.our_endpoints(small.model, small.variables, scaled, aux_head=False)
    return {"pixels": pixels, "scaled": scaled, "logits": np.asarray(ours["logits"])}


@pytest.mark.parametrize("preprocessing", [False, True])
@pytest.mark.parametrize("format", PROGRAMS)
def test_a_program_computes_what_the_network_does(small, sample, tmp_path, format, preprocessing):
    skip_without(format)
    path = tmp_path / PROGRAMS[format]
    notes = export(small, format, path, preprocessing=preprocessing)
    assert sum(note.startswith("verified: ") for note in notes) == 1
    assert list(tmp_path.iterdir()) == [path]
    theirs = run(path, sample["pixels" if preprocessing else "scaled"])
    assert verify.difference("logits", theirs, sample["logits"]).relative < 1e-5


def test_stablehlo_runs_everywhere_with_any_batch(small, tmp_path):
    export(small, "stablehlo", tmp_path / "x.stablehlo")
    exported = jax.export.deserialize(bytearray((tmp_path / "x.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    (images,), (logits,) = exported.in_avals, exported.out_avals
    assert str(images) == f"float32[batch,{SIZE},{SIZE},3]"
    assert str(logits) == f"float32[batch,{CLASSES}]"


@pytest.mark.parametrize(
    "fields",
    [
        {"avg_pool_counts_padding": True, "batch_norm_scale": True},
        {"mixed_7c_pool": "max", "aux_head": "none", "relu_between_3x3": False},
        {"outline": "table1", "batch_norm_epsilon": 1e-2},
        {"stem": "7x7", "factorization": "full", "reduction": "pool_first"},
        {"factorization": "3x3", "expanded_filter_bank": False, "reduction": "convolve_first"},
    ],
)
def test_every_network_can_be_rebuilt(tmp_path, fields):
    ours = random_weights(**fields)
    for format in ("onnx", "savedmodel"):
        skip_without(format)
        export(ours, format, tmp_path / PROGRAMS[format])
        assert (tmp_path / PROGRAMS[format]).exists()


def test_onnx_graphs_are_for_readers_of_2022(small):
    skip_without("onnx")
    from inception.weights.export import onnx_graph

    model = onnx_graph.build(*program(small, preprocessing=True))
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    operations = [node.op_type for node in model.graph.node]
    assert operations.count("Conv") == operations.count("Relu") == 94
    assert operations.count("Transpose") == 1


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        (jax.numpy.tanh, "tanh"),
        (lambda images: images.max(axis=0), "reduce_max"),
        (lambda images: images.sum(axis=3), "reduce_sum"),
        (lambda images: jax.numpy.maximum(images, 1), "max"),
        (lambda images: jax.numpy.concatenate([images, images], axis=1), "concatenate"),
        (lambda images: images.astype("float16"), "convert_element_type"),
    ],
)
def test_what_the_network_never_did_is_not_rebuilt(function, primitive):
    with pytest.raises(NotImplementedError, match=f"^{primitive} "):
        rebuild(function, (8, 8, 3), np.float32, None, "images")


@pytest.mark.parametrize("fields", [{}, {"mixed_7c_pool": "max"}])
def test_tensorflow_lites_converter_takes_a_savedmodel(tmp_path, fields):
    """It refuses explicit padding, also where that is none."""
    skip_without("savedmodel")
    import tensorflow as tf

    from inception.weights.export import saved_model

    path, images = tmp_path / "x", np.random.default_rng(0).normal(size=(1, SIZE, SIZE, 3))
    export(random_weights(**fields), "savedmodel", path)
    lite = tf.lite.TFLiteConverter.from_saved_model(str(path)).convert()
    run_lite = tf.lite.Interpreter(model_content=lite).get_signature_runner()
    logits = run_lite(images=images.astype(np.float32))["logits"]
    expected = saved_model.run(path, images.astype(np.float32))
    assert verify.difference("logits", logits, expected).relative < 1e-5


def test_importing_the_writer_hides_no_gpus_but_calling_it_does(tmp_path, monkeypatch):
    """The program that imports this package may use TensorFlow on a GPU itself."""
    skip_without("savedmodel")
    import tensorflow as tf

    hidden, name = [], "inception.weights.export.saved_model"
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: hidden.append(given))
    monkeypatch.delitem(sys.modules, name, raising=False)
    saved_model = importlib.import_module(name)
    assert hidden == []
    with pytest.raises(OSError, match="nothing"):
        saved_model.run(tmp_path / "nothing", np.zeros((1, SIZE, SIZE, 3), np.float32))
    assert hidden == [([], "GPU")]


def test_an_export_of_several_labels_says_so(small, tmp_path):
    several = dataclasses.replace(small, activation="sigmoid")
    assert any("sigmoid" in note for note in export(several, "stablehlo", tmp_path / "x.stablehlo"))
    export(several, "safetensors", tmp_path / "copy")
    assert weights.load(tmp_path / "copy").activation == "sigmoid"


def test_our_own_format_comes_back(small, tmp_path):
    export(small, "safetensors", tmp_path / "copy")
    back = weights.load(tmp_path / "copy")
    jax.tree.map(np.testing.assert_array_equal, back.variables, small.variables)
    assert (back.model, back.preprocessing, back.labels) == (small.model, SCALING, small.labels)


def test_nothing_is_overwritten(small, tmp_path):
    (tmp_path / "x.stablehlo").write_text("mine")
    with pytest.raises(WeightsError, match=r"x\.stablehlo exists"):
        export(small, "stablehlo", tmp_path / "x.stablehlo")
    assert (tmp_path / "x.stablehlo").read_text() == "mine"


@pytest.mark.parametrize(
    ("format", "name", "preprocessing", "message"),
    [
        ("onnx", "x.pb", False, r"x\.pb.*\.onnx"),
        ("timm", "x.h5", False, r"x\.h5.*\.pth or \.safetensors"),
        ("keras", "x.h5", True, "preprocessing.*keras"),
    ],
)
def test_what_goes_with_no_format_is_refused(small, tmp_path, format, name, preprocessing, message):
    with pytest.raises(WeightsError, match=message):
        export(small, format, tmp_path / name, preprocessing=preprocessing)


def test_logits_that_are_differences_of_large_terms_are_compared_by_these(small, tmp_path):
    """As of a head that has hardly been trained: rounding alone would be refused."""
    variables = {"params": {"Logits": {"kernel": np.float32([[1, 2], [-1, 2]])}}}
    scale = verify.logit_scale(variables, {"pooled": np.float32([[3, 3], [0, 1]])})
    assert scale == 12
    assert verify.logit_scale({"params": {}}, {}) == 0
    head = small.variables["params"]["Logits"]
    kernel = np.full_like(head["kernel"], 10) + np.float32(1e-3) * head["kernel"]
    images = np.zeros((1, 75, 75, 3), np.float32)
    pooled = verify.our_endpoints(small.model, small.variables, images)["pooled"]
    bias = np.float32(-(np.asarray(pooled, np.float64) @ kernel)[0])
    params = {**small.variables["params"], "Logits": {"kernel": kernel, "bias": bias}}
    canceling = dataclasses.replace(small, variables={**small.variables, "params": params})
    export(canceling, "stablehlo", tmp_path / "x.stablehlo")


def test_a_wrong_program_is_not_left(small, tmp_path, monkeypatch):
    model = small.model.clone(mixed_7c_pool="max")
    other = program(dataclasses.replace(small, model=model), preprocessing=False)
    monkeypatch.setattr("inception.weights.export.programs.program", lambda *_: other)
    with pytest.raises(WeightsError, match=r"jax .* computes something else"):
        export(small, "stablehlo", tmp_path / "x.stablehlo")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(small, tmp_path, monkeypatch):
    skip_without("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    notes = export(small, "onnx", tmp_path / "x.onnx")
    assert notes[-1].startswith("not verified: onnxruntime is not installed")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r"not installed.*onnx"):
        export(small, "onnx", tmp_path / "y.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


@pytest.mark.slow
def test_a_run_is_exported_with_its_averages_or_without(tmp_path, capsys):
    with tarfile.open(Path(__file__).parents[1] / "training/old_workdir.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    run_directory, found = tmp_path / "old_workdir", {}
    trained = restore_run(run_directory)
    for name, flags in (("ema", []), ("raw", ["--raw"])):
        output = tmp_path / name
        arguments = ["export", "safetensors", str(run_directory), f"--output={output}", *flags]
        assert command_line.run(lambda arguments=arguments: main(arguments)) == 0
        assert f"written to {output}" in capsys.readouterr().out
        found[name] = weights.load(output).variables
        jax.tree.map(np.testing.assert_array_equal, found[name], trained.variables(name))
    same = jax.tree.map(np.array_equal, found["ema"], found["raw"])
    assert not jax.tree.all(same)


def test_formats_that_are_unknown_end_the_command(tmp_path):
    with pytest.raises(SystemExit) as raised:
        main(["export", "caffe", str(tmp_path), "--output=x"])
    assert raised.value.code == 2
