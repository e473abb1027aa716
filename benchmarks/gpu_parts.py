"""The parts of gpu.py, each in its own process: python -m benchmarks.gpu_parts PART SETTING."""

import dataclasses
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import inception
from benchmarks import optimizations, ours, parity, speed
from benchmarks.cases import OURS, Case
from benchmarks.photographs import write_photographs
from inception.config import load
from inception.errors import UserError
from inception.plan.chips import find_chip
from inception.plan.rows import Plan
from inception.plan.topology import parse_topology
from inception.workdir.files import write_json

OPPONENT = "timm-compile"
TRAIN_BATCHES = (256, 512, 128)
INFER_BATCHES = (1, 8, 32, 128, 256, 1024)
WITHOUT = ("fused network", "packed state", "recomputation")


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
    "quick_start": Part(quick_start, 80),
    "train_256": Part(_measuring("train", 256), 100),
    "train_512": Part(_measuring("train", 512), 40),
    "train_128": Part(_measuring("train", 128), 30),
    "without": Part(without, 60),
    **{f"infer_{batch}": Part(_measuring("infer", batch), 10) for batch in INFER_BATCHES},
    "plan": Part(plan, 20, on_cpu=True),
    "input": Part(inputs, 20, on_cpu=True),
    "profile": Part(profile, 15),
}


def main(name: str, setting: str) -> None:
    """Runs one part, in its own process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the contenders on the way
    given = Setting(**json.loads(setting))
    result = PARTS[name].do(given)
    write_json(Path(given.cache, f"{name}.json"), result)


if __name__ == "__main__":
    main(*sys.argv[1:])
