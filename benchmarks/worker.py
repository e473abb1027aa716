"""The process of one contender: python -m benchmarks.worker CASE, with CASE a `Case` as JSON.

After the first step it answers commands, JSON values of one line each, until its input ends:
{"steps": n} runs n steps and answers with their wall-clock and processor seconds, "memory" with the
peak memory, which "reset_peak" resets.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Contender, prepare

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def answer(contender: Contender, command: Any) -> dict[str, Any]:
    """Executes one command."""
    if command == "memory":
        return {"host_bytes": host_peak(), "device_bytes": contender.device_bytes()}
    if command == "reset_peak":
        return {"reset": reset_peak()}
    for _ in range(contender.stored):
        contender.step()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(command["steps"]):
        contender.step()
    contender.wait()
    return {
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
    }


def host_peak() -> int:
    """Peak memory of this process on the host, in bytes, since `reset_peak`."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Resets `host_peak`; returns whether this system can do that."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def keep_on_cores(count: int) -> None:
    """Restricts this process and its threads to `count` cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def main() -> None:
    """Serves the contender that the command line describes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    case = Case(**json.loads(sys.argv[1]))
    keep_on_cores(case.threads)
    contender = prepare(case)
    first = answer(contender, {"steps": 1})["seconds"]
    ready = {"description": contender.description, "first_step_seconds": first}
    print(json.dumps(ready), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(contender, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
