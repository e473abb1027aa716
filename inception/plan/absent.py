"""Compiles the training step for chips that are not there, and reads what the program says.

XLA's compiler for TPUs is a library, libtpu, that also compiles on a machine without a TPU; that
for NVIDIA's GPUs compiles for any GPU that is described to it. Nothing is executed.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from inception.distributed import sharding
from inception.errors import ConfigError, UserError
from inception.plan import hlo, traffic
from inception.plan.chips import CHIPS, Chip, target_config
from inception.training.state import build
from inception.training.step import TrainStep

# What libtpu needs where there is no TPU: else it asks Google's metadata server what it runs on.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else it wants the lock of those that use a TPU
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any; what is compiled for is named by the topology
}
# cuDNN's algorithms are chosen by trying them, which takes the device: then XLA takes the first.
NO_GPU = {"xla_gpu_autotune_level": 0}
# Compiles five times faster for a TPU: less is kept on the chip, memory is a few percent less.
FAST_COMPILE = {"exec_time_optimization_effort": -1.0}
NEEDED = {False: ("libtpu", "tpu"), True: ("jax_cuda13_plugin", "cuda13")}  # by whether it's a GPU


class Topology(NamedTuple):
    """Chips and how they are connected, as --topology names them.

    Attributes:
      name: "v5e:4x4", "h100" or "h100:8".
      chip: of which it is made.
      shape: chips along each dimension of the network.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of chips."""
        return int(np.prod(self.shape))


class NoMemory(UserError):
    """A program that does not fit; the message is XLA's first line."""


class Compiled(NamedTuple):
    """What a compiled step says of one of its chips.

    Attributes:
      images: a step, of the chip.
      seconds: that compiling took.
      constant_bytes: of memory: the state and the batch.
      temporary_bytes: of memory: what lives during the step.
      moved: bytes that a step reads and writes of the chip's memory, by stage.
      messages: between chips.
      kernels: that a GPU launches.
    """

    images: int
    seconds: float
    constant_bytes: int
    temporary_bytes: int
    moved: Counter[tuple[str, str]]
    messages: list[traffic.Collective]
    kernels: int

    @property
    def peak_bytes(self) -> int:
        """Memory that the step needs."""
        return self.constant_bytes + self.temporary_bytes


def parse_topology(name: str) -> Topology:
    """Reads what --topology names.

    Raises:
      ConfigError: for a kind or a shape that is not known.
    """
    kind, _, shape = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is None:
        raise ConfigError(f"--topology={name}: {kind!r} is none of {', '.join(CHIPS)}")
    good = re.fullmatch(r"\d+(x\d+)*" if chip.gpu is None else r"\d*", shape)
    size = tuple(int(number) for number in shape.split("x")) if good and shape else (1,)
    if not good or (chip.gpu is None and not shape) or 0 in size or np.prod(size) > chip.most:
        example = f"{kind}:2x2x1" if kind in ("v4", "v5p") else f"{kind}:4x4"
        example = example if chip.gpu is None else f"{kind} or {kind}:{chip.most}"
        raise ConfigError(f"--topology={name}: write {example}, at most {chip.most} chips")
    return Topology(name, chip, size)


def check_installed(topology: Topology) -> None:
    """Looks for the compiler, and keeps JAX from looking for the chips that are not here.

    Raises:
      UserError: that says how to install it.
    """
    module, extra = NEEDED[topology.chip.gpu is not None]
    if not importlib.util.find_spec(module):
        raise UserError(
            f"--topology={topology.name}: {module}, which compiles for it, is not installed: "
            f'pip install "jax[{extra}]"'
        )
    jax.config.update("jax_platforms", "cpu")


def make_mesh(topology: Topology) -> Mesh:
    """The mesh of devices that are not there, as `sharding.make_mesh` makes it of those that are.

    Raises:
      UserError: if the compiler for them is not installed.
      ConfigError: if it knows no such topology.
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
        os.environ.update({key: os.environ.get(key, value) for key, value in NO_TPU.items()})
        if topology.chip.name == "v4":
            options["chip_config_name"] = "megacore"  # two cores that are one device, as v5p
        if topology.size == 1:
            options["chips_per_host_bounds"] = [1, 1, 1]
    platform, name = ("cuda", "") if gpu else ("tpu", topology.name)
    try:
        found = topologies.get_topology_desc(platform=platform, topology_name=name, **options)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ConfigError(f"--topology={topology.name}: {error}") from error
    return Mesh(np.array(found.devices), ("data",), axis_types=(AxisType.Auto,))


def compile_for(
    topology: Topology,
    config: ConfigDict,
    images: int,
    num_classes: int,
    *,
    quick: bool = False,
    fuse: bool = True,
    packed: bool | None = None,
) -> Compiled:
    """Compiles the run's own training step.

    Args:
      topology: to compile for.
      config: of the run; its batch size plays no part.
      images: on each chip at a time.
      num_classes: of the data set.
      quick: with the compiler's least effort, on a TPU.
      fuse: as in `Inception`.
      packed: as in `Step`.

    Raises:
      UserError: if the compiler is not installed.
      ConfigError: for a batch that does not split.
      NoMemory: if the chip's memory does not suffice.
    """
    mesh = make_mesh(topology)
    config = config.copy_and_resolve_references()
    config.batch_size = images * topology.size * config.accumulation_steps
    recipe = build(config, num_classes, steps_per_epoch=1000.0)
    recipe = dataclasses.replace(recipe, model=recipe.model.clone(fuse=fuse))
    batch = _abstract_batch(mesh, config.batch_size, config.image_size)
    step = TrainStep(recipe, mesh, packed)
    state = jax.eval_shape(step.pack, recipe.abstract_state(mesh))
    start = time.perf_counter()
    options = NO_GPU if topology.chip.gpu else FAST_COMPILE if quick else None
    try:
        with _no_cache():
            compiled = step.jitted.lower(state, batch).compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise NoMemory(str(error).splitlines()[0]) from error
        raise
    memory, program = compiled.memory_analysis(), hlo.Program(compiled.as_text())
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    stages = (*recipe.model.stages(), "Logits", "AuxLogits")
    return Compiled(
        images=config.batch_size // topology.size,
        seconds=time.perf_counter() - start,
        constant_bytes=arguments + outputs - memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        moved=traffic.by_stage(traffic.transfers(program), stages),
        messages=traffic.collectives(program),
        kernels=traffic.kernels(program),
    )


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Compiles without the cache, which cannot be read where there is no device."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def _abstract_batch(mesh: Mesh, size: int, image_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    split = sharding.split(mesh)

    def each(dtype: Any, *dims: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *dims), dtype, sharding=split)

    numbers = {name: each(jnp.int32) for name in ("label", "epoch", "example")}
    return {"image": each(jnp.uint8, image_size, image_size, 3), **numbers}
