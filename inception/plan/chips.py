"""Published specifications of accelerators."""

import re
from typing import NamedTuple

GB, TB, TERA = 1e9, 1e12, 1e12
GIB = 2**30


class Gpu(NamedTuple):
    """Properties of a GPU that XLA compiles for, as CUDA reports them.

    Attributes:
      title: CUDA's name of the device.
      capability: Major and minor compute capability.
      cores: Number of multiprocessors.
      clock: Clock rate in GHz.
      level2_cache: Bytes of the L2 cache.
      shared_memory: Bytes of shared memory of a multiprocessor; a block may use 1 KiB less.
      threads: Maximum number of threads of a multiprocessor.
      units: Number of float32 units of a multiprocessor.
    """

    title: str
    capability: tuple[int, int]
    cores: int
    clock: float
    level2_cache: int
    shared_memory: int
    threads: int = 2048
    units: int = 128


class Chip(NamedTuple):
    """A kind of accelerator.

    Attributes:
      name: Name as in --topology.
      flops: Operations/s in bfloat16 with float32 sums, two to a multiply-add, without sparsity.
      memory: Bytes of main memory.
      bandwidth: Bytes/s of main memory.
      interconnect: Bytes/s from one chip to the others, over all its links, both directions added
        up, as published.
      link: Name of the interconnect.
      max_chips: Maximum number of connected chips.
      per_host: Number of chips that a host feeds.
      source: Page that these numbers come from.
      gpu: Further properties for XLA; None for a TPU.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    link: str
    max_chips: int
    per_host: int
    source: str
    gpu: Gpu | None = None


_CLOUD = "https://cloud.google.com/tpu/docs"
_NVIDIA = "https://www.nvidia.com/en-us/data-center"

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275 * TERA, 32 * GIB, 1228 * GB, 300 * GB, "ICI", 4096, 4, f"{_CLOUD}/v4"),
        Chip("v5e", 197 * TERA, 16 * GIB, 819 * GB, 400 * GB, "ICI", 256, 4, f"{_CLOUD}/v5e"),
        Chip("v5p", 459 * TERA, 95 * GIB, 2765 * GB, 1200 * GB, "ICI", 8960, 4, f"{_CLOUD}/v5p"),
        Chip("v6e", 918 * TERA, 32 * GIB, 1638 * GB, 800 * GB, "ICI", 256, 4, f"{_CLOUD}/v6e"),
        Chip(
            *("a100", 312 * TERA, 80 * GB, 2.04 * TB, 600 * GB, "NVLink", 8, 8),
            f"{_NVIDIA}/a100",
            Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 40 << 20, 164 << 10, units=64),
        ),
        Chip(
            *("h100", 989 * TERA, 80 * GB, 3.35 * TB, 900 * GB, "NVLink", 8, 8),
            f"{_NVIDIA}/h100",
            Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 50 << 20, 228 << 10),
        ),
        Chip(
            *("h200", 989 * TERA, 141 * GB, 4.8 * TB, 900 * GB, "NVLink", 8, 8),
            f"{_NVIDIA}/h200",
            Gpu("NVIDIA H200", (9, 0), 132, 1.98, 50 << 20, 228 << 10),
        ),
        Chip(
            *("l4", 121 * TERA, 24 * GB, 300 * GB, 64 * GB, "PCIe", 8, 8),
            f"{_NVIDIA}/l4",
            Gpu("NVIDIA L4", (8, 9), 58, 2.04, 48 << 20, 100 << 10, threads=1536),
        ),
        Chip(
            *("b200", 2250 * TERA, 180 * GB, 7.7 * TB, 1800 * GB, "NVLink", 8, 8),
            f"{_NVIDIA}/dgx-b200",
            Gpu("NVIDIA B200", (10, 0), 148, 1.965, 126 << 20, 228 << 10),
        ),
    )
}


# JAX's names of devices that do not contain the chip's.
_KINDS = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}


def find_chip(device_kind: str) -> Chip | None:
    """The chip by `jax.Device.device_kind`, e.g. "NVIDIA H100 80GB HBM3"; None if unknown."""
    kind = _KINDS.get(device_kind, device_kind).lower()
    return next((chip for chip in CHIPS.values() if re.search(rf"\b{chip.name}\b", kind)), None)


def target_config(chip: Chip) -> str:
    """XLA's description of a GPU: a GpuTargetConfigProto as text.

    https://github.com/openxla/xla/blob/main/xla/stream_executor/device_description.proto
    """
    gpu = chip.gpu
    if gpu is None:
        raise ValueError(f"{chip.name} is not a GPU")
    major, minor = gpu.capability
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_memory}
  threads_per_core_limit: {gpu.threads}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {chip.bandwidth:.0f}
  l2_cache_size: {gpu.level2_cache}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {chip.memory:.0f}
  shared_memory_per_block_optin: {gpu.shared_memory - 1024}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{gpu.title}"
"""
