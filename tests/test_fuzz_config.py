"""Bad values in every field: refused before anything is written, by an error that names them."""

import contextlib
import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from ml_collections import ConfigDict

import inception
from inception.config import check_names_and_types, flatten, set_field, validate
from inception.data.datasets import open_eval_source, open_train_source
from inception.defaults import FIELDS
from inception.errors import CheckpointError, ConfigError, UserError
from inception.workdir.identity import read_config
from tests.conftest import TINY
from tests.fuzzing import fuzz

BASE = inception.load_config("configs/digits.py", TINY)
DATA = ("dataset", "data_dir", "split", "eval.dataset", "eval.data_dir", "eval.split")
# By type: too small, too large and not of the type; the same on the command line.
BAD = {
    bool: (3, "true", None),
    int: (-(10**18), 10**18, "1"),
    float: (-1e18, 1e18, math.nan),
    str: ("\0", "\ud800", 3),
    list: ([0.5, 0.5], [0.5, 0.5, math.nan], [0.5, 0.5, "x"]),
}
BAD_TEXT = {
    bool: ("", "1", "yes"),
    int: ("", "1.5", "-999999999999"),
    float: ("", "many", "inf"),
    str: ("\0", "\n", "\ud800"),
    list: ("", "0.5,0.5", "0,0,x"),
}


def _with(fields: dict[str, object]) -> ConfigDict:
    """The digits config with these fields, whatever their types."""
    config = BASE.copy_and_resolve_references()
    with config.ignore_type():
        for name, value in fields.items():
            *groups, field = name.split(".")
            group = config
            for each in groups:
                group = group[each]
            group[field] = value
    return config


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_bad_values_by_name(name):
    for value in BAD[type(FIELDS[name].default)]:
        with pytest.raises(ConfigError, match=rf"config\.{name}="):
            validate(_with({name: value}))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_bad_texts_by_name(name):
    for text in BAD_TEXT[type(FIELDS[name].default)]:
        with pytest.raises(ConfigError, match=rf"config\.{name}="):
            inception.load_config("configs/digits.py", [f"{name}={text}"])


@fuzz(max_examples=25)
@given(st.text(max_size=30), st.sampled_from(["", "model.", "eval.", "evaluations.", "debug."]))
def test_unknown_fields_are_refused_by_name(name, group):
    assume(f"{group}{name}" not in FIELDS)
    with pytest.raises(ConfigError) as error:
        set_field(BASE.copy_and_resolve_references(), f"{group}{name}", "1")
    assert f"config.{group}{name}" in str(error.value)


@contextlib.contextmanager
def _refusing(name: str, kind: type[UserError]):
    """What is done in it may be refused, by an error with this name."""
    try:
        yield
    except kind as error:
        if name not in str(error):
            raise AssertionError(f"{error} does not name {name}") from error


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@fuzz(max_examples=60)
@given(st.sampled_from([*FIELDS, "format", "model", "eval"]), _json)
def test_any_config_json_is_read_or_refused(tmp_path, name, value):
    content = BASE.to_dict()
    *groups, field = name.split(".")
    inner = content
    for group in groups:
        inner = inner[group]
    inner[field] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    with _refusing("config.json", CheckpointError):
        config = read_config(tmp_path)
        check_names_and_types(config)
        assert flatten(config).keys() >= FIELDS.keys()


NASTY = (
    *("nonsense", "a/b", "../x", "é", "file:///nowhere", "xyz://a", "[", "train[", "train[:0]"),
    *("/dev/null", "/etc/passwd", "digits:9.9.9", "digits/x", "mnist", ",", "%s{}", "-1", "train+"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of four images."""
    root = tmp_path_factory.mktemp("folder")
    for split in ("train", "val"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            cv2.imwrite(f"{root}/{split}/{label}/x.png", np.zeros((9, 9, 3), np.uint8))
    return root


@pytest.mark.parametrize("name", [*DATA, "init_from", "eval.exclude"])
def test_data_that_is_not_there_is_one_error_and_writes_nothing(
    name, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    right = {"dataset": "folder", "data_dir": str(folder), "eval.split": "val"}
    for value in NASTY:
        config = _with(right | {name: value})
        with pytest.raises(UserError) as error:
            inception.train_and_evaluate(config, "run")
        assert value in str(error.value) or name.split(".")[-1] in str(error.value)
        assert not (tmp_path / "run").exists()


def test_any_split_is_read_or_refused():
    for name, opens in (("split", open_train_source), ("eval.split", open_eval_source)):
        for value in (*NASTY, "all", "validation", "train[:1%]+validation", "train[5:2]"):
            with _refusing(value, UserError):
                assert len(opens(_with({name: value})))
