"""All measurements for a GPU, within eight minutes.

    pip install -e ".[cuda]" -r requirements-oracles.txt
    python -m benchmarks --mode=gpu [--output=gpu.jsonl] [--minutes=8]

Each part (PARTS, in this order) is a process of its own, and its result is a line of the output as
soon as it is there:

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import inception
from benchmarks import optimizations, ours, parity, speed
from benchmarks.cases import OURS, Case
from benchmarks.interleave import environment
from benchmarks.photographs import write_photographs
from inception.config import load
from inception.errors import UserError
from inception.plan.chips import find_chip
from inception.plan.rows import Plan
from inception.plan.topology import parse_topology

OPPONENT = "timm-compile"
TRAIN_BATCHES = (256, 512, 128)
INFER_BATCHES = (1, 8, 32, 128, 256, 1024)
WITHOUT = ("fused network", "packed state", "recomputation")
MIN_RATIO = 1.0  # of our images/s to theirs, in training and in inference
MIN_ROOFLINE_SHARE = 0.40  # of arithmetic and traffic without overlap, in training
MIN_TOP1 = 0.985  # of the quick start
_TO_END = 8.0  # seconds in which a part that is told to end has to end
_SHAPES = {"train": TRAIN_BATCHES, "infer": INFER_BATCHES}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the parts measure, in plain values.

    Attributes:
      fields: All fields of the config by full name.
      num_classes: Number of logits.
      threads: Threads of each process.
      rounds: Rounds of each measurement.
      seconds: Seconds of a round.
      cache: Folder for compiled programs, the quick start's run and the profile.
      platform: Platform of the device, "gpu"; "cpu" for a rehearsal.
      opponents: Whom our network is measured against.
      scale: Factor of all batch sizes; below 1 in a rehearsal.
      quick_start: Overrides of configs/digits.py.
      device: Name of the device that is planned for; that of the part "device" by default.
    """

    fields: Mapping[str, Any]
    num_classes: int
    threads: int
    rounds: int
    seconds: float
    cache: str
    platform: str = "gpu"
    opponents: Sequence[str] = (OPPONENT,)
    scale: float = 1.0
    quick_start: Sequence[str] = ()
    device: str = ""

    def cases(self, mode: str, batch: int, **fields: Any) -> list[Case]:
        """Our case and the opponents', with the config's `fields` changed."""
        size = max(2, round(batch * self.scale))
        changed = {**self.fields, "batch_size": size, **fields}
        ours = Case(OURS, mode, self.threads, changed, self.num_classes)
        return [ours, *(dataclasses.replace(ours, contender=name) for name in self.opponents)]


def device(setting: Setting) -> dict:
    """The device and its limits."""
    return speed.limits(setting.cases("train", TRAIN_BATCHES[0])[0], Path(setting.cache))


def compare_with_cpu(setting: Setting) -> dict:
    """Relative differences of logits and gradients in float32."""
    case = setting.cases("train", 2, dtype="float32", batch_size=2)[0]
    return parity.compare(case, setting.platform, Path(setting.cache))


def quick_start(setting: Setting) -> dict:
    """The accuracy of the README's first command."""
    config = load("configs/digits.py", setting.quick_start)
    results = inception.train_and_evaluate(config, Path(setting.cache, "quick_start"))
    return {weights: results[weights]["top1"] for weights in ("ema", "raw")}


def measure(mode: str, batch: int, setting: Setting) -> dict:
    """Images/s of a mode at a batch size, ours and the opponents'."""
    cases, cache = setting.cases(mode, batch), Path(setting.cache)
    limits = speed.limits(cases[0], cache)
    results = speed.measure(cases, setting.rounds, setting.seconds, cache)
    print(f"{mode}, batch {batch}", speed.limits_line(limits), sep="\n")
    print(speed.table(results, limits), flush=True)
    return {"limits": limits, "results": [dataclasses.asdict(each) for each in results]}


def without(setting: Setting) -> dict:
    """Seconds of a training step without each of some optimizations."""
    case = setting.cases("train", TRAIN_BATCHES[0])[0]
    names = [optimizations.WHOLE, *WITHOUT]
    return optimizations.seconds(names, ours.config_of(case), 3 * setting.rounds)


def plan(setting: Setting) -> dict:
    """What `python -m inception.plan` predicts for this device."""
    if (chip := find_chip(setting.device)) is None:
        raise UserError(f"there are no published numbers of {setting.device!r}")
    config = ours.config_of(setting.cases("train", TRAIN_BATCHES[0])[0])
    planned = Plan(config, parse_topology(chip.name))
    slowest, fastest = planned.images_per_second(1)
    return {
        "images_per_second": [slowest, fastest],
        "bytes_per_image": planned.hbm_bytes.total(),
        "peak_bytes": planned.peak_bytes(planned.images),
    }


def inputs(setting: Setting) -> dict:
    """Images/s of the input by one thread and by all."""
    folder, cache = Path(setting.cache, "photographs"), Path(setting.cache)
    folder.mkdir(exist_ok=True)
    write_photographs(folder)
    fields = {"data_dir": str(folder), "augmentation": "inception", "batch_size": 64}
    case = setting.cases("data", 64, **fields)[0]
    rates = {}
    for threads in sorted({1, setting.threads}):
        one = dataclasses.replace(case, threads=threads)
        (result,) = speed.measure([one], setting.rounds, setting.seconds, cache)
        rates[str(threads)] = result.images_per_second
    return rates


def profile(setting: Setting) -> dict:
    """A trace of three steps, for ui.perfetto.dev, and the device's peak memory."""
    contender = ours.train(setting.cases("train", TRAIN_BATCHES[0])[0])
    contender.step()
    contender.wait()
    folder = Path(setting.cache, "profile")
    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
        for _ in range(3):
            contender.step()
        contender.wait()
    traces = [str(path.relative_to(folder)) for path in folder.rglob("perfetto_trace.json.gz")]
    return {"folder": str(folder), "traces": traces, "peak_bytes": contender.device_bytes()}


class Part(NamedTuple):
    """A part: what it does, its share of the time, and whether it leaves the device alone."""

    do: Callable[[Setting], dict]
    share: float
    on_cpu: bool = False


def _measuring(mode: str, batch: int) -> Callable[[Setting], dict]:
    return lambda setting: measure(mode, batch, setting)


PARTS = {
    "device": Part(device, 15),
    "parity": Part(compare_with_cpu, 60),
    "quick_start": Part(quick_start, 60),
    "train_256": Part(_measuring("train", 256), 100),
    "train_512": Part(_measuring("train", 512), 40),
    "train_128": Part(_measuring("train", 128), 30),
    "without": Part(without, 60),
    **{f"infer_{batch}": Part(_measuring("infer", batch), 10) for batch in INFER_BATCHES},
    "plan": Part(plan, 20, on_cpu=True),
    "input": Part(inputs, 20, on_cpu=True),
    "profile": Part(profile, 15),
}


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
    print(*verdicts, sep="\n")
    return verdicts


def results_of(output: Path) -> dict[str, dict]:
    """The results that a file of lines holds, by part."""
    lines = output.read_text().splitlines() if output.exists() else []
    return {line["part"]: line["result"] for line in map(json.loads, lines) if "result" in line}


def _run_part(name: str, setting: Setting, seconds: float) -> dict:
    """{"result": ...} of a part that may take so many seconds, or {"error": ...}."""
    cache = Path(setting.cache)
    cache.mkdir(parents=True, exist_ok=True)
    file = cache / f"{name}.json"
    file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu", name, json.dumps(dataclasses.asdict(setting))],
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
        if mode in _SHAPES:
            yield from _judge_speed(f"{mode}, batch {batch}", result)


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


def main(name: str, setting: str) -> None:
    """Runs one part, in its own process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the contenders on the way
    given = Setting(**json.loads(setting))
    result = PARTS[name].do(given)
    file = Path(given.cache, f"{name}.json")
    file.with_suffix(".part").write_text(json.dumps(result))
    file.with_suffix(".part").replace(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
