"""Measures the two halves of a run, its input and its training step, and this machine's memory."""

import math
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from inception.cost.counting import count_network
from inception.data.sources import Source
from inception.data.stream import train_stream
from inception.distributed import sharding
from inception.ops.platforms import cores
from inception.training.state import build
from inception.training.step import TrainStep

MIN_SECONDS = 5.0  # of a measurement
MAX_CPU_MULTIPLY_ADDS = 50e9  # of a step's forward pass: 8 images of the full network


class StepSpeed(NamedTuple):
    """Speed and memory of a training step.

    Attributes:
      images_per_second: Images/s of all devices together.
      batch_size: Images of the measured step, over all devices.
      micro_batch: Images that a device holds at a time.
      constant_bytes: Memory of a device for the state and the batch.
      temporary_bytes: Memory of a device for everything else, which grows with the micro-batch.
    """

    images_per_second: float
    batch_size: int
    micro_batch: int
    constant_bytes: int
    temporary_bytes: int

    def peak_bytes(self, micro_batch: float) -> float:
        """Memory of a device that holds `micro_batch` images at a time, scaled."""
        return self.constant_bytes + self.temporary_bytes * micro_batch / self.micro_batch


def measure_input(config: ConfigDict, source: Source) -> float:
    """Images/s of the training stream on this host, while nothing else runs.

    Raises:
      DataError: See `train_stream`.
    """
    batch_size = 32 * threads(config)  # keeps every thread busy, whatever the config's batch
    batches = train_stream(
        source,
        seed=config.seed,
        image_size=config.image_size,
        batch_size=batch_size,
        augmentation=config.augmentation,
        on_bad_record=config.on_bad_record,
        max_pixels=config.max_pixels,
        threads=config.data_threads,
    )
    return batch_size * _per_second(lambda: next(batches))


def measure_step(config: ConfigDict, source: Source) -> StepSpeed:
    """Compiles the run's own training step and runs it on a synthetic batch.

    The run finds the compiled program in the cache. On a CPU, where a step of a large batch takes
    minutes, the batch may be smaller. Only the sizes of `source` matter.

    Raises:
      jax.errors.JaxRuntimeError: If the devices' memory does not suffice.
    """
    config = measurable(config, source.num_classes)
    size, mesh = config.batch_size, sharding.make_mesh()
    recipe = build(config, source.num_classes, len(source) / size)
    shape, numbers = (
        (size, config.image_size, config.image_size, 3),
        np.arange(size, dtype=np.int32),
    )
    synthetic = {
        "image": np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8),
        "label": numbers % source.num_classes,
        "epoch": np.zeros_like(numbers),
        "example": numbers,
    }
    batch = next(sharding.to_devices(mesh, [synthetic]))
    compiled = TrainStep(recipe, mesh)
    state = compiled.pack(recipe.create_state(mesh))
    step = compiled.jitted.lower(state, batch).compile()

    def run() -> None:
        nonlocal state  # the step donates its state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    memory = step.memory_analysis()
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return StepSpeed(
        images_per_second=size * _per_second(run),
        batch_size=size,
        micro_batch=size // config.accumulation_steps // mesh.size,
        constant_bytes=arguments + outputs - memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
    )


def threads(config: ConfigDict) -> int:
    """Number of cores that the input can use."""
    return min(config.data_threads or cores(), cores())


def on_cpu() -> bool:
    """Whether the step runs on the cores that the input needs, too."""
    return jax.default_backend() == "cpu"


def host_memory() -> int:
    """Bytes of the host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_memory() -> int:
    """Bytes that JAX may use on a device; CPU devices share the host's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or host_memory() // jax.local_device_count()


def _per_second(call: Callable[[], object]) -> float:
    """Calls per second, after one to warm up."""
    call()
    count, start = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - start < MIN_SECONDS:
        call()
        count += 1
    return count / (time.perf_counter() - start)


def measurable(config: ConfigDict, num_classes: int) -> ConfigDict:
    """The config; on a CPU with a batch whose step takes seconds, in whole groups."""
    most = int(MAX_CPU_MULTIPLY_ADDS / count_network(config, num_classes).total.multiply_adds)
    if not on_cpu() or config.batch_size <= most:
        return config
    devices, group = jax.device_count(), config.model.batch_norm_group or most
    devices = math.lcm(devices, 2 if config.mixup_alpha else 1)  # mixup takes images in pairs
    whole = math.lcm(group, devices)
    small = config.copy_and_resolve_references()
    small.accumulation_steps = 1
    small.batch_size = most // whole * whole or max(min(most, group) // devices, 1) * devices
    return small
