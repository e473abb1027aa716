"""Steps that are compiled for chips that are not here, where a compiler is installed."""

import contextlib
import fcntl
from pathlib import Path

import pytest

import inception
from inception.plan import aot, topology
from tests.conftest import TINY

LOCK = Path("/tmp/libtpu_lockfile")
MAX_ALL_REDUCES = 3  # XLA sums at most 256 arrays at once, and there are more float32 ones
pytestmark = pytest.mark.slow


def _compile(name: str) -> aot.Compiled:
    config = inception.load_config("configs/digits.py", [*TINY, "dtype=bfloat16"])
    return aot.compile_for(topology.parse_topology(name), config, 16, 10, quick=True)


@pytest.fixture
def locked():
    """The lock of a process that uses a TPU, held by us or by somebody else."""
    with contextlib.suppress(OSError), LOCK.open("a") as file:
        with contextlib.suppress(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        return
    yield


def test_chips_exchange_their_gradients_at_once(locked):
    """One sum of the kernels' gradients, in bfloat16, and one of all else."""
    pytest.importorskip("libtpu")
    program = _compile("v5e:2x2")
    assert {each.kind for each in program.collectives} == {"all-reduce"}
    assert len(program.collectives) <= MAX_ALL_REDUCES
    assert program.hbm_bytes.total() > 16 * 75 * 75 * 3


def test_a_gpu_is_compiled_for():
    pytest.importorskip("jax_cuda13_plugin")
    program = _compile("h100")
    assert program.kernels > 500
    assert not program.collectives
