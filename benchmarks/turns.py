"""Sides in processes of their own that take turns, so that what disturbs one disturbs all."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.work import ROOT, Work
from inception.errors import UserError


@dataclasses.dataclass(frozen=True)
class Round:
    """Steps that a side made in one go.

    Attributes:
      images: in all steps.
      seconds: of the clock.
      processor_seconds: of all its threads together.
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
        """Images per second of processor time, which other programs on the machine disturb less."""
        return self.images / self.processor_seconds


class Worker:
    """A side's process, from its start to its first step and on.

    Attributes:
      work: what it does.
      does: the same in words.
      start_seconds: from the start of the process to the end of its first step.
      build_seconds: of these, importing and building; the rest is Python's and the first step's.
      first_step_seconds: of these, the first step with all that is compiled for it.
    """

    def __init__(self, work: Work, cache: Path):
        self.work = work
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.worker"]
        self._process = subprocess.Popen(
            [*command, json.dumps(dataclasses.asdict(work))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(work.threads, cache),
            start_new_session=True,  # Ctrl-C is for the parent, which ends its processes
        )
        try:
            ready = self._read()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start
        self.does: str = ready["does"]
        self.build_seconds: float = ready["build_seconds"]
        self.first_step_seconds: float = ready["first_step_seconds"]

    def ask(self, command: Any) -> dict[str, Any]:
        """Sends a command of worker.py and returns its answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def run(self, steps: int) -> Round:
        """Makes steps."""
        return Round(steps * self.work.batch, **self.ask({"steps": steps}))

    def peak_bytes(self) -> int:
        """Memory of the accelerator, or of the host without one, that it used at most."""
        peak = self.ask("memory")
        return peak["device_bytes"] or peak["host_bytes"]

    def close(self) -> None:
        """Ends the process, by force where it is busy."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return json.loads(line)
        status = self._process.wait()
        raise UserError(
            f"the process of {self.work.side!r} ended with status {status}: see what it wrote above"
        )


def environment(threads: int, cache: Path) -> dict[str, str]:
    """Of a side's process.

    Args:
      threads: for the libraries that count cores their own way.
      cache: a folder for what is compiled.
    """
    return {
        # Both sides live on one device: JAX would take three quarters of an accelerator's memory.
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
def started(works: Sequence[Work], cache: Path) -> Iterator[list[Worker]]:
    """Starts the sides one after another, each with the machine to itself, and ends them."""
    with ExitStack() as stack:
        workers = []
        for work in works:
            workers.append(Worker(work, cache))
            stack.callback(workers[-1].close)
        yield workers


def take_turns(workers: Sequence[Worker], rounds: int, seconds: float) -> Mapping[str, list[Round]]:
    """Runs the sides in interleaved rounds, every second time in the opposite order.

    Args:
      workers: after their first step.
      rounds: of each side.
      seconds: that a round takes about; at least one step is made.

    Returns:
      Each side's rounds, by name; rounds of the same number belong together.
    """
    steps = {worker: _steps(worker, seconds) for worker in workers}
    found: dict[str, list[Round]] = {worker.work.side: [] for worker in workers}
    for number in range(rounds):
        for worker in workers if number % 2 == 0 else reversed(workers):
            found[worker.work.side].append(worker.run(steps[worker]))
    return found


def _steps(worker: Worker, seconds: float) -> int:
    """How many steps take about so long; these warm up, and empty what an input has in store."""
    steps = 1
    while (took := worker.run(steps).seconds) < seconds / 2:
        steps *= 2
    return max(1, round(steps * seconds / took))
