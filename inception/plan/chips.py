"""What accelerators are, from their makers' pages: the numbers that a plan for an absent one needs.

Bandwidths are bytes/s, and those of interconnects both directions together, as they are published.
Arithmetic is that of bfloat16 with float32 sums, without sparsity.
"""

import re
from typing import NamedTuple

GB, TB, TERA = 1e9, 1e12, 1e12
GIB = 2**30


class Gpu(NamedTuple):
    """What XLA asks of a GPU: multiprocessors, their limits, caches (CUDA's device properties)."""

    title: str
    capability: tuple[int, int]
    cores: int
    clock: float  # GHz
    level2_cache: int
    shared_memory: int  # bytes of a multiprocessor; a block may have 1 KiB less
    threads: int = 2048  # of a multiprocessor
    units: int = 128  # that multiply float32, of a multiprocessor


class Chip(NamedTuple):
    """A kind of accelerator.

    Attributes:
      arithmetic: operations/s, two to a multiply-add.
      memory: bytes.
      traffic: bytes/s of its memory.
      interconnect: bytes/s between chips, both directions together; of one chip, all its links.
      link: what that is called.
      most: chips that it connects.
      per_host: chips that a host feeds.
      source: where all this was read.
      gpu: what XLA needs besides; None for a TPU.
    """

    name: str
    arithmetic: float
    memory: float
    traffic: float
    interconnect: float
    link: str
    most: int
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


# As JAX names the devices whose names are not the chips'.
_KINDS = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}


def find_chip(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`, "TPU v5 lite" or "NVIDIA H100 80GB HBM3"; or None."""
    kind = _KINDS.get(device_kind, device_kind).lower()
    return next((chip for chip in CHIPS.values() if re.search(rf"\b{chip.name}\b", kind)), None)


def target_config(chip: Chip) -> str:
    """The description by which XLA compiles for a GPU, its GpuTargetConfigProto as text.

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
  memory_bandwidth: {chip.traffic:.0f}
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
