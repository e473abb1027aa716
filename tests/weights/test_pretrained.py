"""The directory of imported weights: whole, once, and read back as it was."""

import dataclasses
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import inception
from inception.data.preprocessing import Preprocessing
from inception.errors import UserError
from inception.weights import Pretrained, WeightsError, load, load_pretrained, pretrained, save
from inception.weights.export import export
from inception.weights.pretrained import DESCRIPTION_FILE, WEIGHTS_FILE, shapes_of


def test_a_bucket_is_refused_instead_of_a_folder_of_its_name(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for refused in (
        lambda: save("gs://bucket/w", small),
        lambda: load("gs://bucket/w"),
        lambda: export(small, "safetensors", "gs://bucket/w"),
    ):
        with pytest.raises(UserError, match="gs://bucket/w is in a bucket"):
            refused()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def small() -> Pretrained:
    """A network of the smallest width, random."""
    rng = np.random.default_rng(0)
    model = inception.Inception(2, width_multiplier=0.05, avg_pool_counts_padding=True)
    arrays = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes_of(model).items()}
    return Pretrained(
        model=model,
        variables=unflatten_dict(arrays, sep="/"),
        preprocessing=Preprocessing(mean=(0.1, 0.2, 0.3), interpolation="bicubic"),
        labels=("cat", "dog"),
        source="torchvision",
        sha256="0" * 64,
        activation="sigmoid",
        provenance={"preprocessing.mean": "config.json"},
    )


def test_everything_comes_back(small, tmp_path):
    save(tmp_path / "new/weights", small)
    back = load(tmp_path / "new/weights")
    jax.tree.map(np.testing.assert_array_equal, back.variables, small.variables)
    for field in dataclasses.fields(Pretrained):
        if field.name != "variables":
            assert getattr(back, field.name) == getattr(small, field.name)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["weights"]


def test_load_pretrained_takes_a_directory(small, tmp_path):
    save(tmp_path / "weights", small)
    model, variables, preprocessing = load_pretrained(str(tmp_path / "weights"))
    assert (model, preprocessing) == (small.model, small.preprocessing)
    assert variables.keys() == {"params", "batch_stats"}


def test_a_description_without_an_activation_has_a_softmax(small, tmp_path):
    """As versions wrote it that knew nothing else."""
    save(tmp_path / "weights", small)
    file = tmp_path / "weights" / DESCRIPTION_FILE
    content = json.loads(file.read_text())
    del content["activation"], content["provenance"]
    file.write_text(json.dumps(content))
    assert (load(tmp_path / "weights").activation, load(tmp_path / "weights").provenance) == (
        "softmax",
        {},
    )


def test_nothing_is_overwritten(small, tmp_path):
    (tmp_path / "weights").mkdir()
    with pytest.raises(WeightsError, match="weights exists"):
        save(tmp_path / "weights", small)


def test_an_interrupted_save_leaves_nothing(small, tmp_path, monkeypatch):
    def fail(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "describe", fail)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "weights", small)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"format": 2},
        lambda content: content | {"model": content["model"] | {"stem": "5x5"}},
        lambda content: content | {"model": content["model"] | {"unknown": 1}},
        lambda content: content | {"preprocessing": {"mean": 1}},
        lambda content: content | {"preprocessing": content["preprocessing"] | {"mean": [0.5]}},
        lambda content: content | {"preprocessing": content["preprocessing"] | {"method": "x"}},
        lambda content: content | {"labels": ["one"]},
        lambda content: content | {"activation": "tanh"},
        lambda content: content | {"provenance": 1},
        lambda content: {name: content[name] for name in ("format", "model")},
        lambda content: [],
    ],
)
def test_a_damaged_description_is_refused(small, tmp_path, change):
    save(tmp_path / "weights", small)
    file = tmp_path / "weights" / DESCRIPTION_FILE
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(WeightsError, match=DESCRIPTION_FILE):
        load(tmp_path / "weights")


def test_weights_of_another_network_are_refused(small, tmp_path):
    save(tmp_path / "weights", small)
    file = tmp_path / "weights" / DESCRIPTION_FILE
    content = json.loads(file.read_text())
    content["model"]["num_classes"], content["labels"] = 3, []
    file.write_text(json.dumps(content))
    with pytest.raises(
        WeightsError, match=rf"{WEIGHTS_FILE}.*\n.*of another shape(.*\n)*.*Logits/bias"
    ):
        load(tmp_path / "weights")


@pytest.mark.parametrize("file", [DESCRIPTION_FILE, WEIGHTS_FILE])
def test_an_incomplete_directory_is_refused(small, tmp_path, file):
    save(tmp_path / "weights", small)
    (tmp_path / "weights" / file).unlink()
    with pytest.raises(WeightsError, match=file):
        load(tmp_path / "weights")


def test_arrays_of_another_precision_become_float32(small, tmp_path):
    half = jax.tree.map(lambda array: array.astype(np.float16), small.variables)
    save(tmp_path / "weights", replace(small, variables=half))
    back = load(tmp_path / "weights").variables
    assert {array.dtype.name for array in jax.tree.leaves(back)} == {"float32"}
    jax.tree.map(np.testing.assert_array_equal, back, half)
