"""Ahead-of-time compilation of the training step for a topology; nothing is executed."""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception.distributed import sharding
from inception.errors import UserError
from inception.plan import hlo, traffic
from inception.plan.topology import Topology, make_mesh
from inception.training.state import build
from inception.training.step import TrainStep

# XLA chooses cuDNN's algorithms by timing them on the device. Without one it takes the first.
NO_AUTOTUNING = {"xla_gpu_autotune_level": 0}
# Five times as fast for a TPU: less is kept on the chip, and memory is a few percent lower.
FAST_COMPILE = {"exec_time_optimization_effort": -1.0}


class OutOfMemory(UserError):
    """The program does not fit into the chip's memory; the message is XLA's first line."""


class Compiled(NamedTuple):
    """What a compiled training step needs of each chip.

    Attributes:
      images: Images of the chip in a step.
      seconds: Time of the compilation.
      constant_bytes: Memory of the state and the batch.
      temporary_bytes: Memory of everything that exists during the step only.
      hbm_bytes: Bytes that a step reads and writes of the chip's main memory, by stage and
        direction, see `traffic.by_stage`.
      collectives: Communication between chips.
      kernels: Kernels that a GPU launches in a step.
    """

    images: int
    seconds: float
    constant_bytes: int
    temporary_bytes: int
    hbm_bytes: Counter[tuple[str, str]]
    collectives: list[traffic.Collective]
    kernels: int

    @property
    def peak_bytes(self) -> int:
        """Memory that the step needs."""
        return self.constant_bytes + self.temporary_bytes


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
    """Compiles the config's training step.

    Args:
      topology: Target of the compilation.
      config: The run's config, except for its batch size.
      images: Images on each chip at a time, i.e. in a micro-batch.
      num_classes: Number of classes of the data set.
      quick: Whether to compile with the least effort (TPU only).
      fuse: See `Inception`.
      packed: See `TrainStep`.

    Raises:
      UserError: If the compiler is not installed.
      ConfigError: If the batch does not divide over the chips.
      OutOfMemory: If the program does not fit into a chip's memory.
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
    options = NO_AUTOTUNING if topology.chip.gpu else FAST_COMPILE if quick else None
    try:
        with no_cache():
            compiled = step.jitted.lower(state, batch).compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise OutOfMemory(str(error).splitlines()[0]) from error
        raise
    memory, program = compiled.memory_analysis(), hlo.Program(compiled.as_text())
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    stages = (*recipe.model.stages(), "Logits", "AuxLogits")
    return Compiled(
        images=config.batch_size // topology.size,
        seconds=time.perf_counter() - start,
        constant_bytes=arguments + outputs - memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        hbm_bytes=traffic.by_stage(traffic.transfers(program), stages),
        collectives=traffic.collectives(program),
        kernels=traffic.kernels(program),
    )


@contextlib.contextmanager
def no_cache() -> Iterator[None]:
    """Disables the compilation cache, whose entries cannot be loaded without the device."""
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
