"""Contenders in processes of their own, in interleaved rounds: what disturbs one disturbs all."""

import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT, Case
from inception.doctor.speed import cores
from inception.errors import UserError

# What makes each library compute as on a processor without AVX-512.
INSTRUCTIONS: dict[str, dict[str, str]] = {
    "native": {},
    "avx2": {
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # our convolutions and PyTorch's
        "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's other operations
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",  # NumPy's, which measures the limits
    },
}


@dataclasses.dataclass(frozen=True)
class Round:
    """Several steps of a contender.

    Attributes:
      images: Images of all steps.
      seconds: Wall-clock time.
      processor_seconds: Processor time of all threads.
    """

    images: int
    seconds: float
    processor_seconds: float

    @property
    def rate(self) -> float:
        """Images/s."""
        return self.images / self.seconds

    @property
    def core_rate(self) -> float:
        """Images per second of processor time, which depends less on other programs."""
        return self.images / self.processor_seconds


class Worker:
    """A contender's process, which has made its first step.

    Attributes:
      case: What the contender does.
      description: The same in words.
      start_seconds: Seconds from the start of the process to the end of its first step.
      first_step_seconds: The first step's part of that, with compilation.
    """

    def __init__(self, case: Case, cache: Path):
        self.case = case
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.worker"]
        self._process = subprocess.Popen(
            [*command, json.dumps(dataclasses.asdict(case))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(case.threads, cache),
            start_new_session=True,  # Ctrl-C goes to the parent only, which ends the process
        )
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start
        self.description: str = ready["description"]
        self.first_step_seconds: float = ready["first_step_seconds"]

    def ask(self, command: Any) -> dict[str, Any]:
        """Sends a command to worker.py and returns its answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def run(self, steps: int) -> Round:
        """Makes steps."""
        return Round(steps * self.case.batch, **self.ask({"steps": steps}))

    def peak_bytes(self) -> int:
        """Peak memory of the accelerator, or of the host without one."""
        peak = self.ask("memory")
        return peak["device_bytes"] or peak["host_bytes"]

    def close(self) -> None:
        """Ends the process, by force if it is busy."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return json.loads(line)
        status = self._process.wait()
        raise UserError(
            f"the process of {self.case.contender!r} ended with status {status}, see above"
        )


def processor() -> str:
    """Name of this machine's processor, and how many of its cores there are."""
    file = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", file.read_text() if file.exists() else "", re.M)
    return f"{names[0] if names else platform.machine()}, {cores()} cores"


@contextmanager
def instructions(name: str) -> Iterator[None]:
    """Processes that start inside use these instructions at most: a key of `INSTRUCTIONS`."""
    before = dict(os.environ)
    flags = INSTRUCTIONS[name] | {
        "XLA_FLAGS": f"{before.get('XLA_FLAGS', '')} {INSTRUCTIONS[name].get('XLA_FLAGS', '')}"
    }
    try:
        os.environ.update(flags)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def environment(threads: int, cache: Path) -> dict[str, str]:
    """Environment variables of a contender's process.

    Args:
      threads: Number of threads, for libraries that count cores in their own way.
      cache: Folder for compiled programs.
    """
    return {
        # Two processes share an accelerator, of which JAX takes three quarters by default.
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "KERAS_BACKEND": "tensorflow",
        **os.environ,
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


@contextmanager
def started(cases: Sequence[Case], cache: Path) -> Iterator[list[Worker]]:
    """Starts the contenders one after another, and ends them."""
    with ExitStack() as stack:
        workers = []
        for case in cases:
            workers.append(Worker(case, cache))
            stack.callback(workers[-1].close)
        yield workers


def interleave(workers: Sequence[Worker], rounds: int, seconds: float) -> Mapping[str, list[Round]]:
    """Runs interleaved rounds, every second time in the opposite order.

    Args:
      workers: Contenders after their first step.
      rounds: Rounds of each contender.
      seconds: Approximate time of a round, which has at least one step.

    Returns:
      Each contender's rounds, by name; rounds of the same number belong together.
    """
    steps = {worker: _steps(worker, seconds) for worker in workers}
    found: dict[str, list[Round]] = {worker.case.contender: [] for worker in workers}
    for number in range(rounds):
        for worker in workers if number % 2 == 0 else reversed(workers):
            found[worker.case.contender].append(worker.run(steps[worker]))
    return found


def _steps(worker: Worker, seconds: float) -> int:
    """Number of steps in about `seconds`. Counting them also warms up and drains input queues."""
    steps = 1
    while (took := worker.run(steps).seconds) < seconds / 2:
        steps *= 2
    return max(1, round(steps * seconds / took))
