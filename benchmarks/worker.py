"""The process of one side: python -m benchmarks.worker WORK, with WORK a `Work` as JSON.

It makes the side's first step, and then answers commands, one JSON value in a line each, until its
input ends: {"steps": n} runs n steps and gives their seconds, of the clock and of the processor;
"memory" gives the most memory that was used, and after "forget" only that used since then.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.work import Side, Work, prepare

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def answer(side: Side, command: Any) -> dict[str, Any]:
    """Does what one line of the input asks for."""
    if command == "memory":
        return {"host_bytes": host_peak(), "device_bytes": side.device_bytes()}
    if command == "forget":
        return {"forgot": forget_peak()}
    for _ in range(side.stored):
        side.step()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(command["steps"]):
        side.step()
    side.wait()
    return {
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
    }


def host_peak() -> int:
    """Bytes of the host's memory that this process held at most (since `forget_peak`)."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> bool:
    """Starts the count of `host_peak` anew; returns whether this system can do that."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def keep_on_cores(count: int) -> None:
    """Keeps this process, and the threads it starts, on so many cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def main() -> None:
    """Serves the side that the command line describes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the error stream
    work = Work(**json.loads(sys.argv[1]))
    keep_on_cores(work.threads)
    start = time.perf_counter()
    side = prepare(work)
    built = time.perf_counter()
    first = answer(side, {"steps": 1})["seconds"]
    ready = {"does": side.does, "build_seconds": built - start, "first_step_seconds": first}
    print(json.dumps(ready), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(side, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
