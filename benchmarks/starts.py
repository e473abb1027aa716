"""What a start costs: time to the first training step, and memory, cold and with what is cached."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks.turns import Worker
from benchmarks.work import Work


@dataclasses.dataclass(frozen=True)
class Start:
    """Of one fresh process.

    Attributes:
      side: its name.
      does: what a step is.
      cold: whether nothing was compiled before.
      seconds: from the start of the process to the end of its first step.
      first_step_seconds: of these, the first step with all that is compiled or loaded for it.
      step_seconds: of a later step.
      peak_bytes: of memory at most until the first step, compilation included.
      step_peak_bytes: of memory at most during a later step, what stays from before included.
    """

    side: str
    does: str
    cold: bool
    seconds: float
    first_step_seconds: float
    step_seconds: float
    peak_bytes: int
    step_peak_bytes: int


def measure(works: Sequence[Work], rounds: int, cache: Path) -> list[Start]:
    """Starts every side twice a round, alone, with a cache of its own that is empty at first."""
    starts = []
    for number in range(rounds):
        for work in works:
            own = cache / f"{work.side}-{number}".replace(" ", "-")
            starts += [_start(work, own, cold) for cold in (True, False)]
    return starts


def _start(work: Work, cache: Path, cold: bool) -> Start:
    worker = Worker(work, cache)
    try:
        peak = worker.peak_bytes()
        worker.ask("forget")
        step = worker.run(1)
        return Start(
            side=work.side,
            does=worker.does,
            cold=cold,
            seconds=worker.start_seconds,
            first_step_seconds=worker.first_step_seconds,
            step_seconds=step.seconds,
            peak_bytes=peak,
            step_peak_bytes=worker.peak_bytes(),
        )
    finally:
        worker.close()


def startup_table(starts: Sequence[Start]) -> str:
    """Seconds to the first step; the first start and the second of a round in one line."""
    rows = [
        {
            "side": cold.side,
            "first start": f"{cold.seconds:.1f} s",
            "second start": f"{warm.seconds:.1f} s",
            "second / first": f"{warm.seconds / cold.seconds:.2f}",
            "first step": f"{cold.first_step_seconds:.1f} s",
            "from the cache": f"{warm.first_step_seconds:.1f} s",
            "a step": f"{warm.step_seconds:.1f} s",
        }
        for cold, warm in _pairs(starts)
    ]
    return _table(rows, starts)


def memory_table(starts: Sequence[Start]) -> str:
    """Peaks of memory; a step's is of the second start, for compiling leaves memory behind."""
    rows = [
        {
            "side": cold.side,
            "start and a step, compiling": f"{cold.peak_bytes / 2**30:.2f} GiB",
            "from the cache": f"{warm.peak_bytes / 2**30:.2f} GiB",
            "a step": f"{warm.step_peak_bytes / 2**30:.2f} GiB",
        }
        for cold, warm in _pairs(starts)
    ]
    return _table(rows, starts)


def _pairs(starts: Sequence[Start]) -> list[tuple[Start, Start]]:
    return list(zip(starts[::2], starts[1::2], strict=True))


def _table(rows: list[dict[str, str]], starts: Sequence[Start]) -> str:
    align = ("left", *["right"] * (len(rows[0]) - 1))
    does = dict.fromkeys(f"{start.side}: {start.does}" for start in starts)
    lines = tabulate(rows, "keys", "simple", colalign=align, disable_numparse=True)
    return "\n".join([lines, "", *does])
