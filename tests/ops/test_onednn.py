"""onednn.py: what is done where oneDNN's convolutions are not installed, or cannot be loaded."""

import os
from importlib import metadata, util

import pytest

from inception.ops import onednn

needs_onednn = pytest.mark.skipif(
    not onednn.load(),
    reason="oneDNN is not installed: pip install -r requirements-cpu.txt && pip install -e .",
)


@needs_onednn
def test_what_cannot_be_loaded_is_warned_of(monkeypatch):
    def fail(path: str):
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(onednn.ctypes, "CDLL", fail)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with pytest.warns(UserWarning, match="libgomp"):
        assert not onednn.load.__wrapped__()
    assert "OMP_WAIT_POLICY" not in os.environ


def _absent(package: str) -> list:
    raise metadata.PackageNotFoundError(package)


@pytest.mark.parametrize(
    ("module", "name", "found"),
    [
        (util, "find_spec", lambda _: None),
        (metadata, "files", lambda _: []),
        (metadata, "files", _absent),
    ],
)
def test_it_is_xlas_where_onednn_is_not_installed(module, name, found, monkeypatch):
    monkeypatch.setattr(module, name, found)
    assert not onednn.load.__wrapped__()


@needs_onednn
@pytest.mark.parametrize("policy", [None, "active"])
def test_loading_leaves_the_environment_as_it_was(policy, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert onednn.load.__wrapped__()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
