"""What the device could do at best, and a model of what the network needs of it.

Arithmetic: 2 operations per multiply-add (counted by inception.cost), once forward and twice
backward; the peak is measured on a CPU (a matrix product) and published for others. Traffic: every
convolution's output is written and read in inference. In training it passes 14 times:

    forward    written by the convolution, read for the statistics, read and written by the
               normalization, read by the next convolution
    backward   the gradient and the output read for the normalization's sums, both read and the
               gradient written, read for the input's gradient, written as such, and with the
               input read for the weights' gradient

and the float32 weights 13 times a step: read forward and backward, gradients written, read for
their norm and for the update, weights, both of RMSProp's moments and the running average read and
written. Pools and concatenations are left out, and fusion that avoids a pass can exceed this limit.
Bandwidth is measured on CPUs and GPUs.
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

from benchmarks.ours import config_of
from benchmarks.work import Work
from benchmarks.worker import keep_on_cores
from inception.cost.counting import count_network
from inception.plan.chips import find_chip

OUTPUT_PASSES = {"infer": 2, "train": 14}
WEIGHT_PASSES = {"infer": 1, "train": 13}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of a device for one kind of work.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      device: its name.
      operations: per second at best; nan where unknown.
      bandwidth: bytes/s of its memory; nan where unknown.
      operations_per_image: that the network needs.
      bytes_per_image: that the network moves, by the model above.
    """

    platform: str
    device: str
    operations: float
    bandwidth: float
    operations_per_image: float
    bytes_per_image: float

    @property
    def by_arithmetic(self) -> float:
        """Images/s at most."""
        return self.operations / self.operations_per_image

    @property
    def by_traffic(self) -> float:
        """Images/s at most."""
        return self.bandwidth / self.bytes_per_image

    @property
    def roofline(self) -> float:
        """Images/s when arithmetic and traffic do not overlap."""
        return 1 / (1 / self.by_arithmetic + 1 / self.by_traffic)


def needs(work: Work) -> tuple[float, float]:
    """Operations and bytes of an image, by the model above."""
    network = count_network(config_of(work), work.num_classes)
    total = network.total_with_aux_head if work.mode == "train" else network.total
    weights = total.parameters * 4 * WEIGHT_PASSES[work.mode] / work.batch
    outputs = sum(layer.activation_bytes for layer in total.layers if layer.kind == "conv")
    operations = 2 * total.multiply_adds * (3 if work.mode == "train" else 1)
    return operations, outputs * OUTPUT_PASSES[work.mode] + weights


def limits(work: Work) -> Limits:
    """Counts what the work needs and measures or looks up what this process's device can do."""
    operations_per_image, bytes_per_image = needs(work)
    device = jax.local_devices()[0]
    name, (operations, bandwidth) = device.device_kind, published(device.device_kind, work.dtype)
    if device.platform == "cpu":
        name = f"CPU, {work.threads} threads"
        operations, bandwidth = cpu_operations(), cpu_bandwidth(work.threads)
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
    """Peak operations/s and bytes/s of a device by JAX's name for it; nan for an unknown one.

    For float32 a GPU multiplies in TF32, at half of bfloat16's speed, and a TPU in bfloat16: that
    is JAX's default on them.
    """
    chip = find_chip(name)
    if chip is None:
        return float("nan"), float("nan")
    return chip.arithmetic / (2 if chip.gpu and dtype == "float32" else 1), chip.traffic


def cpu_operations(size: int = 2048) -> float:
    """Floating-point operations/s of a float32 matrix product."""
    matrix = np.ones((size, size), np.float32)
    return 2 * size**3 / _fastest(lambda: matrix @ matrix)


def cpu_bandwidth(threads: int, megabytes: int = 256) -> float:
    """Bytes/s of the sum of two arrays, all that is read and written, over all threads."""
    count = megabytes * 250_000 // threads
    arrays = [np.ones((3, count), np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _fastest(lambda: list(pool.map(lambda a: np.add(a[0], a[1], out=a[2]), arrays)))
    return 3 * 4 * count * threads / seconds


def gpu_bandwidth(megabytes: int = 1024) -> float:
    """Bytes/s of adding 1 to an array, read and written."""
    array = jnp.zeros(megabytes * 250_000, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * array.nbytes / _fastest(lambda: add(array).block_until_ready())


def _fastest(call: Callable[[], object], seconds: float = 2.0) -> float:
    """Seconds of the fastest call in about `seconds`: the limit is what is possible."""
    times: list[float] = []
    call()
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    work = Work(**json.loads(sys.argv[1]))
    keep_on_cores(work.threads)
    found = limits(work)
    derived = {name: getattr(found, name) for name in ("by_arithmetic", "by_traffic", "roofline")}
    print(json.dumps(dataclasses.asdict(found) | derived))
