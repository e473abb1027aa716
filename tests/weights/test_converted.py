"""Imported weights that are kept: used while they are whole and of this code."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from inception import Inception, Preprocessing
from inception.weights import Pretrained, converted

KEY = "0123456789abcdef" * 4


@pytest.fixture
def calls(web):
    """How often was imported."""
    return []


@functools.cache
def _imported() -> Pretrained:
    model = Inception(3, aux_head="none", width_multiplier=0.05)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 75, 75, 3), np.float32))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    return Pretrained(model, ones, Preprocessing(75), ("a", "b", "c"), "keras", KEY)


def _keep(calls: list, key: str = KEY, source: str = "keras") -> Pretrained:
    def importing() -> Pretrained:
        calls.append(key)
        return _imported()

    return converted.keep(key, source, importing)


def _folders(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "weights").iterdir())


def test_the_second_time_nothing_is_imported(calls, tmp_path):
    first, second = _keep(calls), _keep(calls)
    assert calls == [KEY]
    assert dataclasses.replace(second, variables={}) == dataclasses.replace(first, variables={})
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    assert len(_folders(tmp_path)) == 1


def test_another_file_source_or_code_is_imported(calls, tmp_path, monkeypatch):
    _keep(calls)
    _keep(calls, source="slim")
    _keep(calls, key=KEY[::-1])
    assert len(_folders(tmp_path)) == len(calls) == 3
    monkeypatch.setattr(converted, "_code", lambda: "00000000")
    _keep(calls)
    assert len(calls) == 4
    assert len(_folders(tmp_path)) == 3  # what older code imported makes room


@pytest.mark.parametrize(
    ("name", "damage"),
    [("weights.safetensors", "flip"), ("model.json", "cut"), ("sha256sums", "remove")],
)
def test_damage_is_noticed_and_mended(calls, tmp_path, capsys, name, damage):
    good = _keep(calls)
    (file,) = (tmp_path / "cache" / "weights").glob(f"*/{name}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content) if damage == "flip" else bytes(content[:-1]))
    if damage == "remove":
        file.unlink()
    again = _keep(calls)
    assert len(calls) == 2
    assert "is damaged" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, again.variables, good.variables)
    assert (file.parent / "sha256sums").is_file()


def test_a_cache_that_cannot_be_written_is_said(calls, tmp_path, capsys):
    (tmp_path / "cache").touch()
    assert _keep(calls).source == "keras"
    assert "imported again next time" in capsys.readouterr().err
