"""Picks the fastest of several ways in which a library can run a network, as the opponent."""

import statistics
import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]


def fastest(
    makers: Mapping[str, Callable[[], Call]], wait: Call = lambda: None
) -> tuple[Call, str]:
    """Finds the fastest of several calls.

    Args:
      makers: Functions that make the call, by name.
      wait: Returns when the work of all calls is done.

    Returns:
      The fastest call, and a note with the milliseconds of each, or why it does not work here.

    Raises:
      RuntimeError: If none works.
    """
    seconds, calls, notes = {}, {}, []
    for name, make in makers.items():
        try:
            calls[name] = make()
            seconds[name] = _seconds(calls[name], wait)
            notes.append(f"{name} {1000 * seconds[name]:.1f} ms")
        except Exception as error:  # whatever a compiler raises, e.g. that there is none
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            notes.append(f"{name} failed: {first[:100]}")
    if not seconds:
        raise RuntimeError("; ".join(notes))
    return calls[min(seconds, key=lambda name: seconds[name])], "; ".join(notes)


def _seconds(call: Call, wait: Call) -> float:
    """The median of five calls, after three that may compile."""
    times = []
    for _ in range(8):
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])
