"""Weight files for torchvision, timm and Keras: the same tensors, loaded by the libraries."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from inception import weights
from inception.data.preprocessing import Preprocessing
from inception.weights import WeightsError, names, reference
from inception.weights.export import FORMATS, export
from inception.weights.pretrained import shapes_of
from tests.oracles import random_array
from tests.weights.test_export import CLASSES, random_weights

SMALL_IMAGES = Preprocessing(image_size=107)
WIDE = {"width_multiplier": 1.0}
EXACT = WIDE | {"padding": "exact"}
TORCH = WIDE | {"avg_pool_counts_padding": True, "aux_head": "none"}


@pytest.fixture
def no_library(monkeypatch):
    """As where the libraries are not installed: what is written is read by our importer alone."""

    def missing(*_, **__):
        raise WeightsError("timm is not installed") from ModuleNotFoundError("timm")

    monkeypatch.setattr(reference, "endpoints", missing)


def test_imported_tensors_go_out_bit_for_bit(tmp_path, no_library):
    model = random_weights(Preprocessing(), **WIDE, batch_norm_scale=True).model
    shapes, rng = shapes_of(model), np.random.default_rng(0)
    file = {
        name: np.ascontiguousarray(
            names.to_source(names.TORCH, ours, random_array(ours, shapes[ours], rng))
        )
        for ours, name in names.table(names.TORCH, shapes).items()
    }
    source = tmp_path / "inception_v3.gluon_in1k.safetensors"
    safetensors.numpy.save_file(file, source)
    notes = export(weights.import_weights(source), "torchvision", tmp_path / "x.safetensors")
    assert [note for note in notes if note.startswith("not compared")]
    back = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    counters = {name: back.pop(name) for name in list(back) if name.endswith("batches_tracked")}
    assert len(counters) == len(names.CONVOLUTIONS)
    assert back.keys() == file.keys()
    assert all(np.array_equal(back[name], file[name]) for name in file)


def test_what_has_no_scale_gets_ones_and_the_rest_is_kept(tmp_path, no_library):
    ours = random_weights(SMALL_IMAGES, **TORCH)
    notes = export(ours, "timm", tmp_path / "x.safetensors")
    assert any("no scale" in note for note in notes)
    back = weights.import_weights(tmp_path / "x.safetensors", "timm.tf_in1k")
    pair = back.variables["params"]["Mixed_7c"]["branch1x1"]["bn"]
    assert (pair["scale"] == 1).all()
    expected = ours.variables["params"]["Mixed_7c"]["branch1x1"]["bn"]["bias"]
    np.testing.assert_array_equal(pair["bias"], expected)


@pytest.mark.parametrize(
    ("format", "fields", "named"),
    [
        ("torchvision", WIDE, "model.avg_pool_counts_padding is False"),
        ("timm", TORCH | {"mixed_7c_pool": "max"}, "model.mixed_7c_pool is 'max'"),
        ("timm", TORCH | {"batch_norm_epsilon": 1e-2}, "model.batch_norm_epsilon is 0.01"),
        ("torchvision", TORCH | {"stem": "7x7"}, "model.stem is '7x7'"),
        ("torchvision", TORCH | {"outline": "table1"}, "model.outline is 'table1'"),
        ("keras", {"width_multiplier": 0.5}, "model.width_multiplier is 0.5"),
        ("keras", WIDE | {"batch_norm_scale": True}, "model.batch_norm_scale is True"),
        ("keras", TORCH, "model.avg_pool_counts_padding is True"),
    ],
)
def test_what_a_format_cannot_carry_is_refused(tmp_path, format, fields, named):
    with pytest.raises(WeightsError, match=f"{format}'s network .*{named}"):
        export(random_weights(**fields), format, tmp_path / f"x{FORMATS[format].suffixes[0]}")


def test_timms_create_model_refuses_an_auxiliary_head_so_that_it_is_left_out(tmp_path, no_library):
    ours = random_weights(Preprocessing(), **TORCH | {"aux_head": "bn"})
    notes = export(ours, "timm", tmp_path / "x.safetensors")
    assert "aux_logits=False" in notes[0]
    assert any("auxiliary head" in note for note in notes)
    assert not [n for n in safetensors.numpy.load_file(tmp_path / "x.safetensors") if "Aux" in n]


def test_a_refusal_because_of_the_padding_names_both_choices(tmp_path):
    with pytest.raises(WeightsError, match=r"--padding=exact .*--padding=ignore"):
        export(random_weights(**WIDE), "timm", tmp_path / "x.pth")
    with pytest.raises(WeightsError) as raised:  # it would not be enough
        export(random_weights(), "timm", tmp_path / "x.pth")
    assert "--padding" not in str(raised.value)


@pytest.mark.parametrize(
    ("format", "fields", "reason"),
    [
        ("timm", TORCH, "this one's do"),
        ("keras", WIDE, "not for keras"),
        ("onnx", WIDE, "not for onnx"),
    ],
)
def test_where_the_padding_is_no_question_a_choice_is_refused(tmp_path, format, fields, reason):
    output = tmp_path / f"x{FORMATS[format].suffixes[0]}"
    with pytest.raises(WeightsError, match=reason):
        export(random_weights(**fields), format, output, padding="ignore")


def test_another_file_is_not_overwritten_by_the_one_beside_the_weights(tmp_path, no_library):
    (tmp_path / "exact_padding.py").write_text("mine")
    with pytest.raises(WeightsError, match=r"exact_padding.py exists"):
        export(random_weights(**WIDE), "timm", tmp_path / "x.pth", padding="exact")
    assert [file.name for file in tmp_path.iterdir()] == ["exact_padding.py"]


def test_auxiliary_heads_of_other_sizes_are_left_out(tmp_path, no_library):
    ours = random_weights(SMALL_IMAGES, **TORCH | {"aux_head": "bn"})
    notes = export(ours, "torchvision", tmp_path / "x.safetensors")
    assert any("auxiliary head" in note for note in notes)
    assert "aux_logits=False" in notes[0]


def test_tensors_that_change_on_the_way_are_noticed(tmp_path, no_library, monkeypatch):
    to_ours = names.to_ours
    monkeypatch.setattr(names, "to_ours", lambda *arguments: to_ours(*arguments) + 1)
    with pytest.raises(WeightsError, match="read back differently"):
        export(random_weights(SMALL_IMAGES, **TORCH), "timm", tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.rounding
@pytest.mark.parametrize("name", ["x.weights.h5", pytest.param("x.h5", marks=pytest.mark.slow)])
def test_keras_loads_and_computes_the_same(tmp_path, name):
    keras = pytest.importorskip("keras", reason="Keras is the reader")
    ours = random_weights(SMALL_IMAGES, **WIDE)
    keras.layers.Conv2D(1, 1)  # the numbers in names need not begin with 0
    notes = export(ours, "keras", tmp_path / name)
    assert any("auxiliary head" in note for note in notes)
    assert any(note.startswith("verified: keras's network computes") for note in notes)
    network = keras.applications.InceptionV3(weights=None, classes=CLASSES)
    network.load_weights(tmp_path / name)
    back = weights.import_weights(tmp_path / name, "keras").variables
    np.testing.assert_array_equal(
        network.get_layer("predictions").kernel, ours.variables["params"]["Logits"]["kernel"]
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        back["batch_stats"]["Mixed_7c"],
        ours.variables["batch_stats"]["Mixed_7c"],
    )


@pytest.mark.slow
def test_a_keras_model_has_our_image_size_and_activation(tmp_path):
    pytest.importorskip("keras", reason="Keras is the reader")
    ours = dataclasses.replace(random_weights(SMALL_IMAGES, **WIDE), activation="sigmoid")
    export(ours, "keras", tmp_path / "x.h5")
    back = weights.import_weights(tmp_path / "x.h5")
    assert (back.preprocessing.image_size, back.activation) == (107, "sigmoid")
    assert back.provenance["activation"] == "x.h5"


@pytest.mark.parametrize(
    ("format", "name", "size", "fields"),
    [
        ("timm", "x.safetensors", 107, TORCH),
        pytest.param("torchvision", "x.pth", 107, TORCH, marks=pytest.mark.slow),
        ("torchvision", "x.safetensors", 107, EXACT),
        pytest.param("timm", "x.pth", 107, EXACT, marks=pytest.mark.slow),
        ("timm", "x.safetensors", 107, WIDE | {"padding": "ignore"}),
        pytest.param("timm", "x.pth", 299, TORCH | {"aux_head": "bn"}, marks=pytest.mark.slow),
        pytest.param(
            "torchvision", "x.pth", 299, TORCH | {"aux_head": "bn"}, marks=pytest.mark.slow
        ),
    ],
)
def test_pytorchs_libraries_load_strictly_and_compute_the_same(
    tmp_path, format, name, size, fields
):
    for package in ("torch", format):
        if not importlib.util.find_spec(package):
            pytest.skip(f"the reader needs {package}: requirements-oracles.txt")
    fields = dict(fields)
    padding = fields.pop("padding", "")
    weights.save(tmp_path / "ours", random_weights(Preprocessing(image_size=size), **fields))
    command = [sys.executable, "-m", "inception.weights", "export", format]  # no TensorFlow there
    command += [str(tmp_path / "ours"), f"--output={tmp_path / name}"]
    command += [f"--padding={padding}"] * bool(padding)
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"verified: {format}'s network computes the same" in printed
    assert ("changes the logits" in printed) == (padding == "ignore")
    exact = "from exact_padding import exact_padding; " if padding == "exact" else ""
    constructor = printed.removeprefix("load it into ").partition(";")[0]
    code = (
        f"import sys, torch, {format}, safetensors.torch as st; path = sys.argv[1]; {exact}"
        "load = torch.load if path.endswith('.pth') else st.load_file; "
        f"print({constructor}.load_state_dict(load(path), strict=True))"
    )
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    loaded = subprocess.run(
        [sys.executable, "-c", code, tmp_path / name],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"PYTHONPATH": str(tmp_path)},
    )
    assert loaded.stdout.strip() == "<All keys matched successfully>"
