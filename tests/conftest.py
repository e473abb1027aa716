"""Shared by all tests: one compilation cache a session, small configs, real images in memory."""

import os
import tempfile
from collections.abc import Sequence

import numpy as np
import pytest

# Before JAX starts. Subprocesses and pytest-xdist's workers inherit it, so that each program is
# compiled once a session.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="inception-test-cache-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import inception
from inception.data.sources import ArraySource
from tests.loopback import Server

# The digits run shrunk: 16 channels nearly everywhere, a batch of two groups, a step in 0.1 s.
TINY = (
    "model.width_multiplier=0.05",
    "model.batch_norm_group=8",
    "batch_size=16",
    "eval.batch_size=16",
    "learning_rate=0.01",
)


@pytest.fixture(scope="session")
def tiny():
    """Makes the digits config at the smallest width; takes further overrides."""

    def make(*overrides: str, base: str = "digits"):
        return inception.load_config(f"configs/{base}.py", [*TINY, *overrides])

    return make


@pytest.fixture(scope="session")
def digits():
    """Makes a source of scikit-learn's digits in memory, [n, 8, 8, 1]."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)

    def make(indices: Sequence[int] | slice) -> ArraySource:
        return ArraySource(images[indices], labels[indices], [str(digit) for digit in range(10)])

    return make


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A server on the loopback interface, and an environment that knows nothing but it.

    Our cache is tmp_path/cache, the home folder tmp_path/home; nothing waits between tries.
    """
    from inception.weights import transport

    for name in os.environ:
        if name.upper().endswith(("_PROXY", "_HOME", "_OFFLINE")) or name.startswith("HF_"):
            monkeypatch.delenv(name)
    for name, value in (("HOME", "home"), ("INCEPTION_CACHE", "cache"), ("NETRC", "netrc")):
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transport, "PAUSE", 0.01)
    monkeypatch.setattr(transport, "TIMEOUT", (20.0, 20.0))
    with Server() as server:
        yield server
