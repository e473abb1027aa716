"""The trace of some steps."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from inception.training import profiling
from inception.training.profiling import Profiler


def _run(steps: str, workdir, first: int, last: int) -> list:
    step, x = jax.jit(lambda x: x @ x), jnp.eye(64)
    with Profiler(steps, workdir) as profiler:
        for number in range(first, last + 1):
            profiler.before(number)
            x = step(x)
            profiler.after(number, x)
    return list(workdir.rglob("perfetto_trace.json.gz"))


# All of it; from within, as a run that continues; a run that ends before it.
@pytest.mark.parametrize(
    ("first", "last"),
    [(1, 5), *(pytest.param(*steps, marks=pytest.mark.slow) for steps in ((3, 5), (1, 2)))],
)
def test_steps_are_traced_for_perfetto_and_tensorboard(tmp_path, capsys, first, last):
    (trace,) = _run("2:4", tmp_path, first, last)
    assert trace.is_relative_to(tmp_path / "profile")
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert list(trace.parent.glob("*.xplane.pb"))
    assert str(tmp_path / "profile") in capsys.readouterr().out


@pytest.mark.parametrize("steps", ["", "7:9"])
def test_other_steps_leave_nothing(tmp_path, steps):
    assert not _run(steps, tmp_path, 1, 5)
    assert not (tmp_path / "profile").exists()


def test_a_trace_is_copied_into_a_bucket(tmp_path, monkeypatch):
    """A folder is treated as one; twice, since a run may be profiled again."""
    monkeypatch.setattr(profiling, "is_local", lambda _: False)
    assert len(_run("2:2", tmp_path, 1, 3)) == 1
    for trace in (traces := _run("2:2", tmp_path, 1, 3)):
        assert trace.is_relative_to(tmp_path / "profile" / "plugins")
        assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert traces
