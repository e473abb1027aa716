"""A workdir belongs to one config and its data."""

import json
from pathlib import Path

import pytest

from inception import workdir as runs
from inception.errors import CheckpointError, UserError


@pytest.fixture
def data(digits):
    """What the run trains on."""
    return digits(slice(0, 64))


@pytest.fixture
def workdir(tmp_path):
    """A workdir in which something was trained."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    return tmp_path


def test_a_workdir_that_cannot_be_written(tmp_path, tiny, data):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        runs.claim(tmp_path / "file" / "below", tiny(), data)


def test_a_workdir_belongs_to_its_config(tmp_path, tiny, data):
    runs.claim(tmp_path, tiny("seed=1"), data)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    runs.claim(
        tmp_path, tiny("seed=1", "num_epochs=99.0", "eval.crops=12", "on_bad_record=skip"), data
    )
    with pytest.raises(CheckpointError) as error:
        runs.claim(tmp_path, tiny("seed=2", "model.stem=7x7", "num_epochs=3.0"), data)
    assert "config.seed: 1 in the workdir, 2 now" in str(error.value)
    assert "config.model.stem: 'factorized' in the workdir, '7x7' now" in str(error.value)
    assert "num_epochs" not in str(error.value)


def test_a_run_that_has_not_trained_may_be_replaced(tmp_path, tiny, data):
    runs.claim(tmp_path, tiny("seed=1"), data)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text("")
    runs.claim(tmp_path, tiny("seed=2"), data)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2


def test_a_run_does_not_go_on_with_more_images(tmp_path, tiny, digits, data):
    runs.claim(tmp_path, tiny(), data)
    runs.claim(tmp_path, tiny(), digits(slice(0, 65)))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="trains on 65 images and the data now has 64"):
        runs.claim(tmp_path, tiny(), data)


def test_a_run_does_not_go_on_with_other_classes(workdir, tiny, data):
    (workdir / "config.json").write_text(json.dumps(tiny().to_dict()))
    for classes, message in (
        ([*map(str, range(9)), "ten"], "lists 10 classes .*'9', 'ten'"),
        (["0", "2", "1", *map(str, range(3, 10))], "their order differs"),
    ):
        (workdir / "data.json").write_text(json.dumps({"classes": classes}))
        with pytest.raises(CheckpointError, match=message):
            runs.check(workdir, tiny(), data)


def test_damaged_files_are_named(workdir, tiny, data):
    (workdir / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is no config"):
        runs.check(workdir, tiny(), data)
    (workdir / "data.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"data\.json is damaged"):
        runs.check_classes(workdir, ["0"])


def test_evaluation_asks_only_for_the_same_network(tmp_path, tiny, data):
    (tmp_path / "file").write_text("")
    for nothing in (tmp_path, tmp_path / "file"):
        with pytest.raises(CheckpointError, match="holds no run"):
            runs.check_model(nothing, tiny())
    runs.claim(tmp_path, tiny(), data)
    runs.check_model(tmp_path, tiny("batch_size=32", "image_size=99"))
    with pytest.raises(CheckpointError, match=r"config\.model\.aux_head"):
        runs.check_model(tmp_path, tiny("model.aux_head=none"))


def test_evaluation_asks_for_as_many_classes(tmp_path, tiny, data):
    runs.claim(tmp_path, tiny(), data)
    runs.check_classes(tmp_path, data.class_names)
    runs.check_classes(tmp_path, [])  # nobody knows their names
    with pytest.raises(CheckpointError, match="has 10 classes and the data has 2"):
        runs.check_classes(tmp_path, ["0", "1"])


def test_checkpoints_without_a_config_are_not_taken_over(tmp_path, tiny, data):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        runs.claim(tmp_path, tiny(), data)


def test_workdirs_are_local_and_checkpoints_have_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert runs.as_workdir("~/run") == Path("/home/me/run")
    assert runs.locate("runs/a/checkpoints/90") == (Path("runs/a"), 90)
    assert runs.locate("runs/a") == (Path("runs/a"), None)
    with pytest.raises(CheckpointError, match=r"gs://bucket/run is not a local path: mount"):
        runs.as_workdir("gs://bucket/run")
