"""load_any: whatever holds weights, by the path alone."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inception
from inception.distributed import sharding
from inception.errors import CheckpointError
from inception.training.state import build
from inception.weights import WeightsError, from_run, load, load_any, save
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.identity import start_or_resume
from tests.weight_files import keras_shapes, write_hdf5


def _filled(like, value):
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), like)


@pytest.fixture(scope="module")
def workdir(tiny, digits, tmp_path_factory):
    """A run with two checkpoints, whose leaves are all the step, or its half if averaged."""
    workdir, config = tmp_path_factory.mktemp("loading") / "run", tiny("input_mean=0.1,0.2,0.3")
    start_or_resume(workdir, config, digits(slice(0, 4)))
    like = build(config, 10, 4.0).abstract_state(sharding.make_mesh())
    with CheckpointWriter(workdir) as saved:
        for step in (2, 4):
            names = ("ema_params", "ema_batch_stats")
            averages = {name: _filled(getattr(like, name), step / 2) for name in names}
            saved.save(step, _filled(like, step).replace(**averages))
    return workdir


def _value(pretrained) -> float:
    return np.unique([np.unique(leaf) for leaf in jax.tree.leaves(pretrained.variables)]).item()


def test_a_run_has_its_averages_classes_and_preprocessing(workdir):
    loaded = load_any(workdir)
    assert _value(loaded) == 2
    assert loaded.labels == tuple(map(str, range(10)))
    assert loaded.preprocessing.image_size == 75
    assert loaded.preprocessing.mean == (0.1, 0.2, 0.3)
    assert loaded.model.width_multiplier == 0.05
    assert loaded.source == str(workdir / "checkpoints" / "4")


def test_a_checkpoint_can_be_named_and_the_raw_weights_taken(workdir):
    assert _value(load_any(os.fspath(workdir / "checkpoints" / "2"))) == 1
    assert _value(from_run(workdir, ema=False)) == 4
    with pytest.raises(CheckpointError, match="step 3"):
        load_any(workdir / "checkpoints" / "3")


@pytest.mark.slow
def test_a_run_saved_as_weights_comes_back_at_its_image_size(workdir, tmp_path):
    """The auxiliary head's fully connected layer has the shape that the run's images gave it."""
    save(tmp_path / "weights", load_any(workdir))
    back = load_any(tmp_path / "weights")
    assert _value(back) == 2
    assert (back.model, back.labels) == (load_any(workdir).model, load_any(workdir).labels)
    assert load(tmp_path / "weights").source == back.source


def test_files_of_other_libraries_are_recognized(tmp_path):
    loaded = load_any(write_hdf5(tmp_path / "x.h5", keras_shapes(2)))
    assert (loaded.source, loaded.model.num_classes) == ("keras", 2)


def test_load_pretrained_is_what_a_predictor_takes(workdir):
    predict = inception.Predictor(*inception.load_pretrained(workdir))
    assert predict.preprocessing.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("name", ["nothing", "empty", "other/config.json's folder"])
def test_what_is_none_of_these_is_told_what_was_looked_for(tmp_path, name):
    path = tmp_path / name
    if name != "nothing":
        path.mkdir(parents=True)
    if "other" in name:  # another program's, as on Hugging Face
        (path / "config.json").write_text("{}")
    with pytest.raises(WeightsError) as error:
        load_any(path)
    for looked_for in (str(path), "model.json", "config.json", "checkpoints"):
        assert looked_for in str(error.value)
    assert sorted(path.glob("*")) == sorted(path.glob("config.json"))
