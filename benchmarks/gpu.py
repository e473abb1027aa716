"""All measurements for a GPU, within eight minutes.

    pip install -e ".[cuda]" -r requirements-oracles.txt
    python -m benchmarks --mode=gpu [--output=gpu.jsonl] [--minutes=8]

Each part (gpu_parts.PARTS, in that order) is a process of its own, and its result is a line of the
output as soon as it is there:

    {"part": "train_256", "seconds": 61.2, "result": {...}}, or "error": why there is none

The parts share the minutes. One that exceeds its share is ended, and the time that it leaves is the
next ones'. Given again, the command keeps the results and runs what is missing, with the programs
that were compiled (OUTPUT.cache). If logits or gradients differ from the CPU's, or there is no GPU,
nothing else is measured. Networks are measured in bfloat16 with float32 weights, next to timm's,
channels last, compiled by torch.compile with autocast. No GPU has run it yet.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import parity
from benchmarks.gpu_parts import PARTS, TRAIN_BATCHES, Setting
from benchmarks.interleave import environment
from benchmarks.optimizations import GIB
from inception.errors import UserError

MIN_RATIO = 1.0  # of our images/s to theirs, in training and in inference
MIN_ROOFLINE_SHARE = 0.40  # of arithmetic and traffic without overlap, in training
MIN_TOP1 = 0.985  # of the quick start
_TO_END = 8.0  # seconds in which a part that is told to end has to end


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target, the measured value, and whether the target is met."""

    target: str
    found: float
    met: bool

    def __str__(self) -> str:
        return f"{'met' if self.met else 'MISSED':8}{self.target}: {self.found:.3g}"


def run(setting: Setting, output: Path, minutes: float) -> list[Verdict]:
    """Runs the parts whose results `output` lacks, one after the other, within `minutes`.

    Returns:
      The targets of all parts that have a result; they are printed.

    Raises:
      UserError: If there is no such device, or its results differ from the CPU's.
    """
    found, start, end = results_of(output), time.monotonic(), 0.0
    unit = 60 * minutes / sum(part.share for part in PARTS.values())
    for name, part in PARTS.items():
        end += part.share * unit
        if name not in found:
            began = time.monotonic()
            line = _run_part(name, setting, start + end - began)
            with output.open("a") as file:
                seconds = round(time.monotonic() - began, 1)
                file.write(json.dumps({"part": name, "seconds": seconds, **line}) + "\n")
            print(f"{name}: {line.get('error', 'done')}, {seconds} s\n", flush=True)
            found = results_of(output)
        if name == "device" and name in found:
            require(found[name], setting.platform)
            name_of = setting.device or found[name]["device"]
            setting = dataclasses.replace(setting, device=name_of)
        if name == "parity":
            require_parity(found)
    verdicts = list(judge(found))
    print(*verdicts, *predictions(found), sep="\n")
    return verdicts


def results_of(output: Path) -> dict[str, dict]:
    """The results that a file of lines holds, by part."""
    lines = output.read_text().splitlines() if output.exists() else []
    return {line["part"]: line["result"] for line in map(json.loads, lines) if "result" in line}


def _run_part(name: str, setting: Setting, seconds: float) -> dict:
    """{"result": ...} of a part that is limited to `seconds`, or {"error": ...}."""
    cache = Path(setting.cache)
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{name}.json"
    file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.gpu_parts",
            name,
            json.dumps(dataclasses.asdict(setting)),
        ],
        env=environment(setting.threads, cache)
        | ({"JAX_PLATFORMS": "cpu"} if PARTS[name].on_cpu else {}),
        start_new_session=True,  # so that all of its processes can be ended
    )
    try:
        status = process.wait(max(0.1, seconds - _TO_END))
    except subprocess.TimeoutExpired:
        status = None
    finally:
        _end(process)
    if file.exists():
        return {"result": json.loads(file.read_text())}
    return {"error": f"ended after {seconds:.0f} s" if status is None else f"status {status}"}


def _end(process: subprocess.Popen) -> None:
    """Ends a part and what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_TO_END)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def require(limits: Mapping[str, Any], platform: str) -> None:
    """Requires the device.

    Raises:
      UserError: If JAX has no such device.
    """
    if limits["platform"] != platform:
        raise UserError(
            f"--mode=gpu needs a GPU, and JAX finds {limits['device']}: on a machine with one, "
            'pip install -e ".[cuda]"'
        )


def require_parity(found: Mapping[str, dict]) -> None:
    """Requires results that are the CPU's.

    Raises:
      UserError: If they differ, or have not been compared.
    """
    verdicts = list(judge({"parity": found["parity"]})) if "parity" in found else []
    print(*verdicts, sep="\n", flush=True)
    if not verdicts or not all(verdict.met for verdict in verdicts):
        raise UserError(
            "the device's results differ from the CPU's or could not be compared, so nothing else "
            "was measured"
        )


def judge(found: Mapping[str, dict]) -> Iterator[Verdict]:
    """The targets of the parts that have a result."""
    for what, limit in parity.TOLERANCE.items() if "parity" in found else ():
        value = found["parity"][what]
        yield Verdict(f"{what} equal to the CPU's within {limit:g}", value, value <= limit)
    if "quick_start" in found:
        top1 = found["quick_start"]["ema"]
        yield Verdict(f"quick start, top-1 at least {MIN_TOP1}", top1, top1 >= MIN_TOP1)
    for name, result in found.items():
        mode, _, batch = name.partition("_")
        if mode in ("train", "infer"):
            yield from _judge_speed(f"{mode}, batch {batch}", result)


def predictions(found: Mapping[str, dict]) -> Iterator[str]:
    """What `inception.plan` predicts, beside what was measured, in lines to print."""
    name = f"train_{TRAIN_BATCHES[0]}"
    if not {"plan", name} <= found.keys():
        return
    planned, ours = found["plan"], found[name]["results"][0]
    slowest, fastest = planned["images_per_second"]
    yield (
        f"planned {slowest:,.0f} to {fastest:,.0f} images/s at batch {ours['batch']}: measured "
        f"{ours['images_per_second'][0]:,.0f}"
    )
    yield (
        f"planned {planned['peak_bytes'] / GIB:.2f} GiB at batch {ours['batch']}: measured "
        f"{ours['peak_bytes'] / GIB:.2f}"
    )


def _judge_speed(name: str, result: Mapping[str, Any]) -> Iterator[Verdict]:
    ours, *others = result["results"]
    for other in others:
        ratio = other["ours_over_theirs"][0]
        target = f"{name}, ours / {other['contender']} at least {MIN_RATIO}"
        yield Verdict(target, ratio, ratio >= MIN_RATIO)
    if name.startswith("train"):
        share = ours["images_per_second"][0] / result["limits"]["roofline"]
        target = f"{name}, share of the no-overlap roofline at least {MIN_ROOFLINE_SHARE}"
        yield Verdict(target, share, share >= MIN_ROOFLINE_SHARE)
