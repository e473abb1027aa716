"""Images/s of all contenders, in interleaved rounds, next to the device's limits."""

import dataclasses
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from benchmarks.cases import OURS, Case
from benchmarks.interleave import Round, Worker, environment, interleave, started


class Spread(NamedTuple):
    """Median and range of a quantity over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The median and the extremes."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        """Formats as "3.1 (2.9 to 3.2)"."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclasses.dataclass(frozen=True)
class Result:
    """Measurements of one contender.

    Attributes:
      contender: Its name.
      description: What a step does.
      batch: Images of a step.
      images_per_second: Images/s over the rounds.
      ours_over_theirs: Ratio of our images/s to its, in rounds of the same number; 1 for ours.
      per_core_second: Images per second of processor time.
      ours_over_theirs_per_core: Ratio of these.
      start_seconds: Seconds from the start of its process, nothing compiled, to the end of its
        first step.
      first_step_seconds: The first step's part of that, with compilation.
      peak_bytes: Peak memory of the accelerator, or else of the host, compilation included.
    """

    contender: str
    description: str
    batch: int
    images_per_second: Spread
    ours_over_theirs: Spread
    per_core_second: Spread
    ours_over_theirs_per_core: Spread
    start_seconds: float
    first_step_seconds: float
    peak_bytes: int


def measure(cases: Sequence[Case], rounds: int, seconds: float, cache: Path) -> list[Result]:
    """Measures all cases together; the first is ours."""
    with started(cases, cache) as workers:
        found = interleave(workers, rounds, seconds)
        return [_result(worker, found[worker.case.contender], found[OURS]) for worker in workers]


def _result(worker: Worker, own: Sequence[Round], ours: Sequence[Round]) -> Result:
    pairs = list(zip(ours, own, strict=True))
    return Result(
        contender=worker.case.contender,
        description=worker.description,
        batch=worker.case.batch,
        images_per_second=Spread.of([each.rate for each in own]),
        ours_over_theirs=Spread.of([a.rate / b.rate for a, b in pairs]),
        per_core_second=Spread.of([each.core_rate for each in own]),
        ours_over_theirs_per_core=Spread.of([a.core_rate / b.core_rate for a, b in pairs]),
        start_seconds=worker.start_seconds,
        first_step_seconds=worker.first_step_seconds,
        peak_bytes=worker.peak_bytes(),
    )


def limits(case: Case, cache: Path) -> dict[str, Any]:
    """The fields and properties of limits.py's `Limits`, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.limits"]
    done = subprocess.run(
        [*command, json.dumps(dataclasses.asdict(case))],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment(case.threads, cache),
    )
    return json.loads(done.stdout)


def table(results: Sequence[Result], limits: Mapping[str, Any]) -> str:
    """A table of contenders that run a network, and their descriptions."""
    return _table(
        results,
        lambda result: {
            "of arithmetic": _percent(result, limits["by_arithmetic"]),
            "of traffic": _percent(result, limits["by_traffic"]),
            "of both": _percent(result, limits["roofline"]),
        },
    )


def input_table(results: Sequence[Result]) -> str:
    """A table of contenders that read images, and their descriptions."""
    return _table(
        results,
        lambda result: {
            "per core-second": result.per_core_second.text(0),
            "ours / theirs per core-second": result.ours_over_theirs_per_core.text(2),
        },
    )


def row(result: Result) -> dict[str, str]:
    """A contender's row in every table."""
    return {
        "contender": result.contender,
        "images/s": result.images_per_second.text(),
        "ours / theirs": result.ours_over_theirs.text(2),
        "peak memory": f"{result.peak_bytes / 2**30:.2f} GiB",
        "first step": f"{result.start_seconds:.1f} s",
    }


def _table(results: Sequence[Result], more: Callable[[Result], dict[str, str]]) -> str:
    rows = [row(result) | more(result) for result in results]
    align = ("left", *["right"] * (len(rows[0]) - 1))
    lines = tabulate(rows, "keys", "simple", colalign=align, disable_numparse=True)
    return "\n".join(
        [lines, "", *(f"{result.contender}: {result.description}" for result in results)]
    )


def limits_line(limits: Mapping[str, Any]) -> str:
    """The device's limits and the network's needs in one line."""
    return (
        f"{limits['device']}: {limits['operations'] / 1e9:,.0f} G operations/s and "
        f"{limits['bandwidth'] / 1e9:,.1f} GB/s at best; an image needs "
        f"{limits['operations_per_image'] / 1e9:.1f} G and "
        f"{limits['bytes_per_image'] / 1e6:.0f} MB (benchmarks/limits.py): at most "
        f"{limits['by_arithmetic']:,.1f} and {limits['by_traffic']:,.1f} images/s"
    )


def _percent(result: Result, limit: float) -> str:
    return f"{100 * result.images_per_second.median / limit:.0f} %"
