"""Shared by all tests: one compilation cache a session, small configs, real images in memory."""

import gc
import os
import tempfile
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

# Before JAX starts. Subprocesses and pytest-xdist's workers inherit it, so that each program is
# compiled once a session.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="inception-test-cache-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax

import inception
from inception.data.sources import ArraySource
from tests.loopback import Server

_SKIPPED = "inception/skipped"  # in pytest's cache: tests, and modules, that were skipped last


def pytest_addoption(parser):
    parser.addoption(
        "--last-skipped",
        action="store_true",
        help="run the tests that were skipped last, as after installing what they lacked",
    )


@pytest.hookimpl(trylast=True)  # after -m and -k
def pytest_collection_modifyitems(config, items):
    if config.getoption("--last-skipped"):
        if not hasattr(config, "cache"):
            raise pytest.UsageError("--last-skipped needs pytest's cache: omit -p no:cacheprovider")
        skipped = set(config.cache.get(_SKIPPED, []))
        wanted = [item for item in items if skipped & {item.nodeid, _module(item.nodeid)}]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted


def _module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Skips:
    """Keeps in pytest's cache what was skipped; a test that has run since is forgotten.

    So is a module that was skipped as a whole, once one of its tests has been reported.
    """

    def __init__(self, cache):
        self._cache = cache
        self._skipped = set(cache.get(_SKIPPED, []))

    def pytest_collectreport(self, report):
        if report.skipped:
            self._skipped.add(report.nodeid)

    def pytest_runtest_logreport(self, report):
        self._skipped.discard(_module(report.nodeid))
        if report.skipped:
            self._skipped.add(report.nodeid)
        elif report.when == "call":
            self._skipped.discard(report.nodeid)

    def pytest_sessionfinish(self):
        self._cache.set(_SKIPPED, sorted(self._skipped))


def pytest_configure(config):
    # As in training (runtime.tune_host_runtime): by default a third of the time of tracing is a
    # search for garbage among the programs of all tests before.
    gc.set_threshold(50_000, 20, 100)
    # pytest-xdist's workers report to this process; -p no:cacheprovider leaves no cache.
    if not hasattr(config, "workerinput") and hasattr(config, "cache"):
        config.pluginmanager.register(Skips(config.cache))


# The digits run shrunk: 16 channels nearly everywhere, a batch of two groups, a step in 0.1 s.
TINY = (
    "model.width_multiplier=0.05",
    "model.batch_norm_group=8",
    "batch_size=16",
    "eval.batch_size=16",
    "learning_rate=0.01",
)


@pytest.fixture
def x64():
    """JAX computes in float64 where a test asks for it (tests/oracles.py's `in_float64`)."""
    with jax.enable_x64():
        yield


@pytest.fixture(scope="session")
def tiny():
    """Makes the digits config at the smallest width; takes further overrides."""

    def make(*overrides: str, base: str = "digits"):
        return inception.load_config(f"configs/{base}.py", [*TINY, *overrides])

    return make


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1), labels


def digits_source(indices: Sequence[int] | slice) -> ArraySource:
    """A source of scikit-learn's digits in memory, [n, 8, 8, 1]."""
    images, labels = _digits()
    return ArraySource(images[indices], labels[indices], [str(digit) for digit in range(10)])


@pytest.fixture(scope="session")
def digits():
    """Makes a source of some of scikit-learn's digits."""
    return digits_source


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
