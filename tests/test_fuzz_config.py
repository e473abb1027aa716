"""Any value in any field: refused before the first step by an error that names it, or it runs."""

import contextlib
import json
import math

import jax
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from ml_collections import ConfigDict

import inception
from inception import config as settings
from inception import defaults
from inception.data.datasets import open_eval_source, open_train_source
from inception.data.sources import ArraySource
from inception.errors import CheckpointError, ConfigError, UserError
from inception.network.model import NETWORK_CHOICES
from inception.training.loop import Trainer
from inception.training.watch import TrainingError
from inception.workdir.identity import read_config
from tests.conftest import TINY
from tests.fuzzing import fuzz

BASE = inception.load_config("configs/digits.py", TINY)
FIELDS = settings.flatten(BASE)
DATA = ("dataset", "data_dir", "split", "eval.dataset", "eval.data_dir", "eval.split")
NUMBERS = [name for name, value in FIELDS.items() if type(value) in (int, float)]

_numbers = st.one_of(
    st.sampled_from([0, -1, 2**31 - 1, 2**31, 2**32, 2**63, -(2**63), 10**30]),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-300, 1e300, 5e-324, -1e-9]),
    st.integers(),
    st.floats(),
    st.integers(1, 200),
    st.floats(0, 1),
)
_texts = st.one_of(
    st.text(max_size=40), st.sampled_from(["", " ", "\0", "\ud800", "x" * 300, "x/" * 3000])
)
_anything = st.one_of(
    _numbers,
    _texts,
    st.none(),
    st.booleans(),
    st.binary(max_size=4),
    st.lists(st.one_of(_numbers, _texts, st.none()), max_size=4),
    st.dictionaries(st.sampled_from(["a", "crops"]), st.integers(), max_size=2),
    st.complex_numbers(),
)


def _with(fields: dict[str, object]) -> ConfigDict:
    """The digits config with these fields, whatever their types."""
    config = BASE.copy_and_resolve_references()
    with config.ignore_type():
        for name, value in fields.items():
            *groups, field = name.split(".")
            group = config
            for each in groups:
                group = group[each]
            try:
                group[field] = value
            except OverflowError:  # ml_collections makes floats of whole numbers
                assume(False)
    return config


@contextlib.contextmanager
def _refusing(*names: str, kind: type[UserError] = ConfigError):
    """What is done in it may be refused, by an error that has one of the names."""
    try:
        yield
    except kind as error:
        if not any(name in str(error) for name in names):
            raise AssertionError(f"{error} names none of {names}") from error


def _is_good(config: ConfigDict, *names: str) -> bool:
    """Whether a config is accepted; if not, the error names one of the fields."""
    with _refusing(*(name.split(".")[-1] for name in names)):
        settings.validate(config)
        settings.check_batch_size(config, devices=8)
        return True
    return False


@fuzz(max_examples=400)
@given(st.sampled_from(list(FIELDS)), _anything)
def test_any_value_of_any_field_is_accepted_or_refused_by_name(name, value):
    _is_good(_with({name: value}), name)


@fuzz(max_examples=200)
@given(st.sampled_from(list(FIELDS)), st.one_of(_texts, _numbers.map(str)))
def test_any_text_on_the_command_line_is_accepted_or_refused_by_name(name, text):
    config = BASE.copy_and_resolve_references()
    with _refusing(f"config.{name}", name.split(".")[-1]):
        settings.set_field(config, name, text)
        settings.validate(config)


@fuzz(max_examples=100)
@given(st.text(max_size=30), st.sampled_from(["", "model.", "eval.", "evaluations.", "debug."]))
def test_unknown_fields_are_refused_by_name(name, group):
    assume(f"{group}{name}" not in FIELDS)
    with pytest.raises(ConfigError) as error:
        settings.set_field(BASE.copy_and_resolve_references(), f"{group}{name}", "1")
    assert f"config.{group}{name}" in str(error.value)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_limits(name):
    kind = type(FIELDS[name])
    for value in (-(10**18), 10**18):
        with pytest.raises(ConfigError, match=name.split(".")[-1]):
            settings.validate(_with({name: kind(value)}))


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _texts),
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
    with _refusing("config.json", kind=CheckpointError):
        settings.check_names_and_types(read_config(tmp_path))


_SOURCE = ArraySource(
    np.zeros((64, 8, 8, 1), np.uint8), np.arange(64) % 10, [str(number) for number in range(10)]
)
_CHOICES = {**defaults.CHOICES, **{f"model.{k}": v for k, v in NETWORK_CHOICES.items()}}


def _plausible(name: str) -> st.SearchStrategy:
    """Values of a field's own type, many of them right."""
    value = FIELDS[name]
    if name in _CHOICES:
        return st.sampled_from(_CHOICES[name])
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.one_of(st.integers(0, 200), st.integers(0, 2**32))
    if isinstance(value, float):
        return st.one_of(st.floats(0, 1), st.floats(0, 1e9))
    return st.just(value)


@pytest.mark.slow
@fuzz(max_examples=80)
@given(data=st.data())
def test_any_combination_of_fields_is_refused_or_builds(data, tmp_path):
    names = data.draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=5, unique=True))
    config = _with({name: data.draw(_plausible(name), label=name) for name in names})
    if _is_good(config, *FIELDS):
        with _refusing(*(name.split(".")[-1] for name in names)):
            Trainer(config, tmp_path / "run", _SOURCE, _SOURCE)
    assert not (tmp_path / "run").exists()


def _trace(config: ConfigDict) -> None:
    """Traces the step of an accepted config, which finds what cannot be computed."""
    settings.validate(config)
    trainer = Trainer(config, "/nowhere", _SOURCE, _SOURCE)
    size, shape = config.batch_size, jax.ShapeDtypeStruct
    images = shape((size, config.image_size, config.image_size, 3), np.uint8)
    numbers = {name: shape((size,), np.int32) for name in ("label", "epoch", "example")}
    state = trainer.recipe.abstract_state(trainer.mesh)
    after, _ = jax.eval_shape(trainer.step, state, {"image": images, **numbers})
    assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(
        lambda leaf: leaf.shape, state
    )


def _extreme(largest: bool) -> ConfigDict:
    """The config whose numbers are all as large, or as small, as is accepted one by one."""
    fields = {}
    for name in NUMBERS:
        most = defaults.AT_MOST.get(name, defaults.MOST)
        least = 1 if isinstance(FIELDS[name], int) else defaults.LEAST
        for value in (most, 1 - 1e-6, 1) if largest else (0, least):
            value = type(FIELDS[name])(value)
            if _is_good(_with({name: value}), name):
                fields[name] = value
                break
    # What is only possible together, or only costs time.
    for name in ("batch_size", "accumulation_steps", "image_size", "model.width_multiplier"):
        fields.pop(name, None)
    return _with(fields | {"model.batch_norm_group": 8, "num_epochs": 100.0, "warmup_epochs": 1.0})


@pytest.mark.parametrize("largest", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_extremes_of_what_is_accepted_can_be_computed(largest):
    _trace(_extreme(largest))


@pytest.mark.slow
@pytest.mark.parametrize("field", ["learning_rate", "mixup_alpha", "model.batch_norm_epsilon"])
def test_the_largest_values_run_or_end_in_an_error_of_ours(tmp_path, field):
    config = _with({field: defaults.MOST, "num_epochs": 0.5, "max_nonfinite_steps": 1})
    with _refusing("step", kind=TrainingError):
        results = inception.train_and_evaluate(config, tmp_path / "run", _SOURCE, _SOURCE)
        assert results["examples"] == len(_SOURCE)


@pytest.mark.slow
@fuzz(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_accepted_combination_can_be_computed(data):
    names = data.draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=5, unique=True))
    config = _with({name: data.draw(_plausible(name), label=name) for name in names})
    assume(_is_good(config, *FIELDS))
    assume(config.accumulation_steps <= 4 and config.model.width_multiplier <= 1)
    with _refusing(*(name.split(".")[-1] for name in names)):
        _trace(config)


NASTY = (
    *("nonsense", "a/b", "../x", "é", "file:///nowhere", "xyz://a", "[", "train[", "train[:0]"),
    *("/dev/null", "/etc/passwd", "digits:9.9.9", "digits/x", "mnist", ",", "%s{}", "-1", "train+"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of four images."""
    import cv2

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
            with _refusing(value, kind=UserError):
                assert len(opens(_with({name: value})))
