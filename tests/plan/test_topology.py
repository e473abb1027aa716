"""Topologies by name; where a compiler is installed, meshes of them."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from inception.distributed import sharding
from inception.errors import ConfigError
from inception.plan import hlo, topology, traffic


@pytest.mark.parametrize(
    ("name", "size"),
    [("v5e:4x4", 16), ("v4:2x2x2", 8), ("v6e:16x16", 256), ("h100", 1), ("l4:4", 4)],
)
def test_topologies(name, size):
    assert topology.parse_topology(name).size == size


@pytest.mark.parametrize(
    "name", ["v9:2x2", "v5e", "v5e:", "v5e:0x4", "v5e:32x32", "v5e:4y4", "h100:9", "h100:2x2", ""]
)
def test_topologies_that_are_not_there(name):
    with pytest.raises(ConfigError, match="--topology"):
        topology.parse_topology(name)


def _needs(module: str):
    reason = f"{module} is not installed"
    return pytest.mark.skipif(not importlib.util.find_spec(module), reason=reason)


def _compile_product(name: str) -> str:
    mesh = topology.make_mesh(topology.parse_topology(name))
    array = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16, sharding=sharding.replicated(mesh))
    return jax.jit(jnp.matmul).lower(array, array).compile().as_text()


@_needs("libtpu")
@pytest.mark.parametrize(
    ("name", "size"), [("v4:2x2x1", 4), ("v5e:1x1", 1), ("v5p:2x2x1", 4), ("v6e:2x2", 4)]
)
def test_other_tpus_are_known(name, size):
    assert topology.make_mesh(topology.parse_topology(name)).size == size
    assert traffic.transfers(hlo.Program(_compile_product(name)))


@_needs("libtpu")
def test_a_shape_that_no_tpu_has_is_refused():
    with pytest.raises(ConfigError, match="--topology=v5e:3x3"):
        topology.make_mesh(topology.parse_topology("v5e:3x3"))


@_needs("jax_cuda13_plugin")
@pytest.mark.parametrize("name", ["a100", "l4", "b200"])
def test_other_gpus_are_known(name):
    assert "ENTRY" in _compile_product(name)
