"""Where a library has several ways to run the same network, the fastest is the opponent."""

import statistics
import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]


def fastest(ways: Mapping[str, Callable[[], Call]], wait: Call = lambda: None) -> tuple[Call, str]:
    """Makes and tries every way.

    Args:
      ways: by name, what makes a call.
      wait: returns when the work of all calls is done.

    Returns:
      The fastest call, and what was found: milliseconds, or why a way does not work here.

    Raises:
      RuntimeError: when none works.
    """
    seconds, calls, notes = {}, {}, []
    for name, make in ways.items():
        try:
            calls[name] = make()
            seconds[name] = _seconds(calls[name], wait)
            notes.append(f"{name} {1000 * seconds[name]:.1f} ms")
        except Exception as error:  # whatever a compiler raises, for instance that there is none
            first, *_ = str(error).strip().splitlines() or [type(error).__name__]
            notes.append(f"{name} failed: {first[:100]}")
    if not seconds:
        raise RuntimeError("; ".join(notes))
    return calls[min(seconds, key=lambda name: seconds[name])], "; ".join(notes)


def _seconds(call: Call, wait: Call) -> float:
    """The median of five calls, after three in which all is compiled."""
    times = []
    for _ in range(8):
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])
