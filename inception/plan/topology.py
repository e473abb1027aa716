"""Chips that this machine does not have, and the mesh of them that a program is compiled for.

XLA's compiler for TPUs is a library, libtpu, that also works on a machine without a TPU; the one
for NVIDIA's GPUs compiles for any GPU that is described to it.
"""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from inception.errors import ConfigError, UserError
from inception.plan.chips import CHIPS, Chip, target_config

# Without a TPU, libtpu would otherwise ask Google's metadata server what it runs on.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # needs no lock that a process with a TPU may hold
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # arbitrary: the topology names the target
}
COMPILERS = {  # by whether the chip is a GPU: the module and the extra of JAX that installs it
    False: ("libtpu", "tpu"),
    True: ("jax_cuda13_plugin", "cuda13"),
}


class Topology(NamedTuple):
    """Chips and how they are connected, as --topology names them.

    Attributes:
      name: Name such as "v5e:4x4", "h100" or "h100:8".
      chip: Kind of chip.
      shape: Number of chips along each dimension of their network.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of chips."""
        return int(np.prod(self.shape))


def parse_topology(name: str) -> Topology:
    """Parses a topology's name.

    Raises:
      ConfigError: If the kind of chip or the shape is unknown.
    """
    kind, _, shape = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is None:
        raise ConfigError(f"--topology={name}: {kind!r} is not one of {', '.join(CHIPS)}")
    valid = re.fullmatch(r"\d+(x\d+)*" if chip.gpu is None else r"\d*", shape)
    dims = tuple(int(number) for number in shape.split("x")) if valid and shape else (1,)
    if not valid or (chip.gpu is None and not shape) or 0 in dims or np.prod(dims) > chip.max_chips:
        example = f"{kind}:2x2x1" if kind in ("v4", "v5p") else f"{kind}:4x4"
        example = example if chip.gpu is None else f"{kind} or {kind}:{chip.max_chips}"
        raise ConfigError(
            f"--topology={name}: expected e.g. {example}, with at most {chip.max_chips} chips"
        )
    return Topology(name, chip, dims)


def check_installed(topology: Topology) -> None:
    """Requires the topology's compiler, and restricts JAX to the CPU.

    Raises:
      UserError: If the compiler is not installed; the message says how to install it.
    """
    module, extra = COMPILERS[topology.chip.gpu is not None]
    if not importlib.util.find_spec(module):
        raise UserError(
            f"--topology={topology.name} is compiled by {module}, which is not installed: "
            f'pip install "jax[{extra}]"'
        )
    jax.config.update("jax_platforms", "cpu")


def make_mesh(topology: Topology) -> Mesh:
    """The topology's counterpart of `sharding.make_mesh`.

    Raises:
      UserError: If the compiler is not installed.
      ConfigError: If the compiler does not know the topology.
    """
    gpu = topology.chip.gpu is not None
    check_installed(topology)
    options: dict[str, Any] = {}
    if gpu:
        options = {
            "topology": f"1x1x{topology.size}",
            "target_config": target_config(topology.chip),
        }
    else:
        os.environ.update(
            {key: os.environ.get(key, value) for key, value in TPU_ENVIRONMENT.items()}
        )
        if topology.chip.name == "v4":
            options["chip_config_name"] = "megacore"  # two cores as one device, as on v5p
        if topology.size == 1:
            options["chips_per_host_bounds"] = [1, 1, 1]
    platform, name = ("cuda", "") if gpu else ("tpu", topology.name)
    try:
        found = topologies.get_topology_desc(platform=platform, topology_name=name, **options)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ConfigError(f"--topology={topology.name}: {error}") from error
    return Mesh(np.array(found.devices), ("data",), axis_types=(AxisType.Auto,))
