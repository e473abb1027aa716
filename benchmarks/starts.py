"""Time to the first training step, and memory, of cold starts and of starts with a full cache."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks.cases import Case
from benchmarks.interleave import Worker


@dataclasses.dataclass(frozen=True)
class Start:
    """Measurements of one fresh process.

    Attributes:
      contender: Its name.
      description: What a step does.
      cold: Whether nothing was compiled before.
      seconds: Seconds from the start of the process to the end of its first step.
      first_step_seconds: The first step's part of that, with compilation or loading.
      step_seconds: Time of a later step.
      peak_bytes: Peak memory until the end of the first step, compilation included.
      step_peak_bytes: Peak memory during a later step.
    """

    contender: str
    description: str
    cold: bool
    seconds: float
    first_step_seconds: float
    step_seconds: float
    peak_bytes: int
    step_peak_bytes: int


def measure(cases: Sequence[Case], rounds: int, cache: Path) -> list[Start]:
    """Starts every contender twice a round, alone, with a cache that is empty at first."""
    starts = []
    for number in range(rounds):
        for case in cases:
            own = cache / f"{case.contender}-{number}".replace(" ", "-")
            starts += [_start(case, own, cold) for cold in (True, False)]
    return starts


def _start(case: Case, cache: Path, cold: bool) -> Start:
    worker = Worker(case, cache)
    try:
        peak = worker.peak_bytes()
        worker.ask("reset_peak")
        step = worker.run(1)
        return Start(
            contender=case.contender,
            description=worker.description,
            cold=cold,
            seconds=worker.start_seconds,
            first_step_seconds=worker.first_step_seconds,
            step_seconds=step.seconds,
            peak_bytes=peak,
            step_peak_bytes=worker.peak_bytes(),
        )
    finally:
        worker.close()


def startup_rows(starts: Sequence[Start]) -> list[dict[str, str]]:
    """Seconds to the first step; a line has a round's first and second start."""
    return [
        {
            "contender": cold.contender,
            "first start": f"{cold.seconds:.1f} s",
            "second start": f"{warm.seconds:.1f} s",
            "second / first": f"{warm.seconds / cold.seconds:.2f}",
            "first step": f"{cold.first_step_seconds:.1f} s",
            "from the cache": f"{warm.first_step_seconds:.1f} s",
            "a step": f"{warm.step_seconds:.1f} s",
        }
        for cold, warm in _pairs(starts)
    ]


def memory_rows(starts: Sequence[Start]) -> list[dict[str, str]]:
    """Peak memory; a step's is the second start's, as compilation leaves memory allocated."""
    return [
        {
            "contender": cold.contender,
            "start and a step, compiling": f"{cold.peak_bytes / 2**30:.2f} GiB",
            "from the cache": f"{warm.peak_bytes / 2**30:.2f} GiB",
            "a step": f"{warm.step_peak_bytes / 2**30:.2f} GiB",
        }
        for cold, warm in _pairs(starts)
    ]


def _pairs(starts: Sequence[Start]) -> list[tuple[Start, Start]]:
    return list(zip(starts[::2], starts[1::2], strict=True))


ROWS = {"startup": startup_rows, "memory": memory_rows}


def table(mode: str, starts: Sequence[Start]) -> str:
    """The table of a mode of `ROWS`, and the descriptions of the contenders."""
    rows = ROWS[mode](starts)
    align = ("left", *["right"] * (len(rows[0]) - 1))
    descriptions = dict.fromkeys(f"{start.contender}: {start.description}" for start in starts)
    lines = tabulate(rows, "keys", "simple", colalign=align, disable_numparse=True)
    return "\n".join([lines, "", *descriptions])
