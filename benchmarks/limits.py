"""Limits of a device, and a model of what the network needs.

Arithmetic: 2 operations per multiply-add, once forward and twice backward. The peak is measured on
a CPU (a matrix product) and published for other devices.

Memory traffic: in inference every convolution's output is written and read. In training it passes
14 times:

    forward    written by the convolution, read for the statistics, read and written by the
               normalization, read by the next convolution
    backward   the gradient and the output read for the normalization's sums, both read and the
               gradient written, read for the input's gradient, written as such, and with the
               input read for the weights' gradient

and the float32 weights pass 13 times a step: read forward and backward, gradients written, read for
their norm and for the update; weights, both moments of RMSProp and the running average read and
written. Pools and concatenations are left out; fusions that avoid a pass can exceed this limit. The
bandwidth is measured on CPUs and GPUs.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case
from benchmarks.ours import config_of
from benchmarks.worker import keep_on_cores
from inception.cost.counting import count_network
from inception.plan.chips import find_chip

OUTPUT_PASSES = {"infer": 2, "train": 14}
WEIGHT_PASSES = {"infer": 1, "train": 13}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a device for one network and mode.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      device: Name of the device.
      operations: Peak operations/s; nan if unknown.
      bandwidth: Memory bandwidth in bytes/s; nan if unknown.
      operations_per_image: Operations that the network needs.
      bytes_per_image: Bytes that the network moves, by the model above.
    """

    platform: str
    device: str
    operations: float
    bandwidth: float
    operations_per_image: float
    bytes_per_image: float

    @property
    def by_arithmetic(self) -> float:
        """Maximum images/s."""
        return self.operations / self.operations_per_image

    @property
    def by_traffic(self) -> float:
        """Maximum images/s."""
        return self.bandwidth / self.bytes_per_image

    @property
    def roofline(self) -> float:
        """Maximum images/s if arithmetic and traffic do not overlap."""
        return 1 / (1 / self.by_arithmetic + 1 / self.by_traffic)


def needs(case: Case) -> tuple[float, float]:
    """Operations and bytes for an image, by the model above."""
    network = count_network(config_of(case), case.num_classes)
    total = network.total_with_aux_head if case.mode == "train" else network.total
    weights = total.parameters * 4 * WEIGHT_PASSES[case.mode] / case.batch
    outputs = sum(layer.activation_bytes for layer in total.layers if layer.kind == "conv")
    operations = 2 * total.multiply_adds * (3 if case.mode == "train" else 1)
    return operations, outputs * OUTPUT_PASSES[case.mode] + weights


def limits(case: Case) -> Limits:
    """Counts what a case needs and measures or looks up what this process's device can do."""
    operations_per_image, bytes_per_image = needs(case)
    device = jax.local_devices()[0]
    name, (operations, bandwidth) = device.device_kind, published(device.device_kind, case.dtype)
    if device.platform == "cpu":
        name = f"CPU, {case.threads} threads"
        operations, bandwidth = cpu_operations(), cpu_bandwidth(case.threads)
    elif device.platform == "gpu":
        bandwidth = gpu_bandwidth()
    return Limits(
        platform=device.platform,
        device=name,
        operations=operations,
        bandwidth=bandwidth,
        operations_per_image=operations_per_image,
        bytes_per_image=bytes_per_image,
    )


def published(name: str, dtype: str) -> tuple[float, float]:
    """Published operations/s and bytes/s of a device, by JAX's name; nan for an unknown one.

    By JAX's defaults a GPU multiplies float32 in TF32, at half of bfloat16's speed, and a TPU in
    bfloat16.
    """
    chip = find_chip(name)
    if chip is None:
        return float("nan"), float("nan")
    return chip.flops / (2 if chip.gpu and dtype == "float32" else 1), chip.bandwidth


def cpu_operations(size: int = 2048) -> float:
    """Floating-point operations/s of a float32 matrix product."""
    matrix = np.ones((size, size), np.float32)
    return 2 * size**3 / _fastest(lambda: matrix @ matrix)


def cpu_bandwidth(threads: int, megabytes: int = 256) -> float:
    """Bytes/s read and written by all threads that add arrays."""
    count = megabytes * 250_000 // threads
    arrays = [np.ones((3, count), np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _fastest(lambda: list(pool.map(lambda a: np.add(a[0], a[1], out=a[2]), arrays)))
    return 3 * 4 * count * threads / seconds


def gpu_bandwidth(megabytes: int = 1024) -> float:
    """Bytes/s read and written by adding 1 to an array."""
    array = jnp.zeros(megabytes * 250_000, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * array.nbytes / _fastest(lambda: add(array).block_until_ready())


def _fastest(call: Callable[[], object], seconds: float = 2.0) -> float:
    """Time of the fastest call within about `seconds`."""
    times: list[float] = []
    call()
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    case = Case(**json.loads(sys.argv[1]))
    keep_on_cores(case.threads)
    found = limits(case)
    derived = {name: getattr(found, name) for name in ("by_arithmetic", "by_traffic", "roofline")}
    print(json.dumps(dataclasses.asdict(found) | derived))
