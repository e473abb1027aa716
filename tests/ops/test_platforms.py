"""platforms.py: which way is traced, and which is compiled."""

import os

import jax
import jax.numpy as jnp
import pytest

from inception.ops.platforms import (
    ANY,
    barrier,
    by_platform,
    compiled_for,
    cores,
    is_reference,
    may_be,
    reference,
)


def _program(platform: str, known: str | None = None) -> str:
    """What a function that chooses is lowered to for a platform; `known` as it is traced."""

    def function(x):
        return by_platform(x, cpu=jnp.sin, tpu=jnp.cos, default=jnp.tan)

    jitted = jax.jit(compiled_for(known)(function) if known else function)
    return jitted.trace(jnp.ones(())).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux's")
def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert cores() == 3


@pytest.mark.parametrize(("platform", "way"), [("cpu", "sine"), ("tpu", "cosine"), ("cuda", "tan")])
@pytest.mark.parametrize("known", [False, True])
def test_the_way_of_the_platform_is_taken(platform, way, known):
    device = "gpu" if platform == "cuda" else platform
    program = _program(platform, device if known else None)
    assert f"stablehlo.{way} " in program
    assert sum(f"stablehlo.{each} " in program for each in ("sine", "cosine", "tan")) == 1


def test_a_known_platform_is_traced_alone():
    assert "stablehlo.case" in _program("cpu")
    assert "stablehlo.case" not in _program("cpu", known="cpu")


def test_on_no_platform_in_particular_the_default_is_taken():
    assert "stablehlo.tan " in _program("cpu", known=ANY)
    with compiled_for(ANY):
        assert not may_be("cpu")


def test_it_is_known_no_longer_than_inside():
    with pytest.raises(ValueError, match="over"), compiled_for("tpu"):
        raise ValueError("over")
    assert may_be("cpu")
    assert by_platform(0, cpu=lambda _: "cpu", default=lambda _: "default") == "cpu"


def test_a_reference_is_asked_for_by_name_and_no_longer_than_inside():
    with reference("conv"), reference("max_pool"):
        assert is_reference("conv")
        assert is_reference("max_pool")
        assert not is_reference("normalize")
    assert not is_reference("conv")
    with pytest.raises(ValueError, match=r"\['pool'\].*'max_pool'"), reference("pool"):
        pass


def test_the_reference_of_a_barrier_is_none():
    def function(x):
        return barrier(x, "cpu")

    traced = jax.jit(compiled_for("cpu")(function)).trace(jnp.ones(()))
    with reference("barrier"):
        plain = jax.jit(compiled_for("cpu")(lambda x: function(x))).trace(jnp.ones(()))
    assert "optimization_barrier" in str(traced.jaxpr)
    assert "optimization_barrier" not in str(plain.jaxpr)
