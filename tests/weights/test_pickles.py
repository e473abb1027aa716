"""Pickles become plain data: nothing is called, and nothing takes long or much memory."""

import io
import pickle
import time
import tracemalloc
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest

from inception.weights.pickles import Inert, Refused, unpickle


class Calls:
    """Asks to be rebuilt by a call."""

    def __init__(self, function, *arguments):
        self.rebuilt_by = (function, arguments)

    def __reduce__(self):
        return self.rebuilt_by


def data(content: bytes):
    return unpickle(io.BytesIO(content), {})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_is_read(protocol):
    content = {
        "numbers": [0, 255, 65535, -1, 2**31, 2**70, -(2**70), 1.5, True, False, None],
        "text": ("a", "é" * 300, "\U0001f600", "", "x" * 70_000),
        "ordered": OrderedDict(b=1, a=[]),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [(5,)]),
        "same": [shared := {"key": 1}, shared],
    }
    assert data(pickle.dumps(content, protocol)) == content


@pytest.mark.parametrize("protocol", [2, 4])
def test_all_else_is_inert(protocol):
    objects = {
        "argparse.Namespace": Namespace(lr=0.1),
        "builtins.set": {1, 2},
        f"{Calls.__module__}.Calls": Calls,
        "builtins.print": Calls(print, "executed"),
        "builtins.eval": Calls(eval, "1 / 0"),
        "builtins.getattr": Calls(getattr, Namespace(), "x"),
    }
    for name, value in objects.items():
        found = data(pickle.dumps({"a": value, "b": 1}, protocol))
        assert found["b"] == 1
        assert isinstance(found["a"], Inert)
        assert found["a"].name.replace("__builtin__", "builtins") in (name, "builtins.set")
    assert data(pickle.dumps({"a": np.ones(3)}, protocol)).keys() == {"a"}


def test_nothing_of_ours_can_be_changed():
    """A state that sets a known function's defaults, or a type's attributes."""
    state = b"N}(X\x0c\x00\x00\x00__defaults__(K\x01K\x02tu\x86"
    for name in (b"torch._utils\n_rebuild_tensor_v2\n", b"torch\nFloatStorage\n"):
        before = data(b"\x80\x02c" + name + b".")
        after = data(b"\x80\x02c" + name + state + b"b.")
        assert after is before
        assert getattr(after, "__defaults__", None) is None


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02.",  # an empty stack
        b"\x80\x02t.",  # no mark
        b"\x80\x02h\x05.",  # nothing remembered
        b"\x80\x02K\x01\x85",  # no end
        b"\x80\x02}(K\x01u.",  # a key without a value
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02K\x01Q.",  # a storage that is a number
        b"\x80\x02X\xff\xff\xff\xffa.",  # a text of 4 GiB
        b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",  # a number of 2 GiB
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00a.",
        b"(ios\nsystem\nX\x02\x00\x00\x00lsi.",  # instructions that call
        b"(X\x02\x00\x00\x00lscos\nsystem\no.",
        b"\x82\x01.",
        b"\x80\x05\x97.",
    ],
)
def test_bad_pickles_raise_at_once(content):
    tracemalloc.start()
    with pytest.raises(Exception):  # noqa: B017, PT011 - of any kind; files.py makes it one sentence
        data(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_places_to_remember_take_no_room():
    """Python's own unpickler would make a list of four billion."""
    tracemalloc.start()
    assert data(b"\x80\x02K\x07r\xff\xff\xff\xff0j\xff\xff\xff\xff.") == 7
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_nesting_and_keys_take_no_time():
    start = time.process_time()
    deep = data(b"\x80\x02N" + b"\x85" * 300_000 + b".")
    assert len(deep) == 1
    del deep
    doubled = b")" + b"2\x86" * 60  # its hash would take 2**60 steps
    assert data(b"\x80\x02}" + doubled + b"K\x01s.") == {}
    assert time.process_time() - start < 20


def test_instructions_are_bounded(monkeypatch):
    monkeypatch.setattr("inception.weights.pickles.MAX_INSTRUCTIONS", 1000)
    with pytest.raises(Refused, match="more than 1000 instructions"):
        data(b"\x80\x02" + b"}" * 2000 + b".")


def test_random_damage_is_data_or_an_exception():
    whole = pickle.dumps({"a": [1, 2.5, (None, "x")], "b": OrderedDict(c=2**70)}, 2)
    rng, raised = np.random.default_rng(0), []
    for _ in range(2000):
        damaged = bytearray(whole)
        for position in rng.integers(2, len(whole), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        try:
            data(damaged)
        except Exception as error:
            raised.append(type(error))
    assert 0 < len(raised) < 2000
    assert MemoryError not in raised
