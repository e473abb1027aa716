"""All measurements for a GPU, in one go.

    pip install -e ".[cuda]" -r requirements-oracles.txt
    python -m benchmarks --mode=gpu [--output=gpu.json]

First compares logits and gradients with the CPU's. Then measures, in bfloat16 with float32 weights,
the training step with 256 images and inference with 1 to 1024, against timm's network, channels
last, compiled by torch.compile with autocast, and checks each target. No GPU has run it yet.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import parity, speed
from benchmarks.cases import Case
from benchmarks.speed import Result
from inception.errors import UserError

OPPONENT = "timm-compile"
TRAIN_BATCH = 256
INFER_BATCHES = (1, 8, 32, 128, 256, 1024)
MIN_RATIO = 1.0  # of our images/s to theirs, in training and in inference
MIN_ROOFLINE_SHARE = 0.40  # of arithmetic and traffic without overlap, in training

CasesOf = Callable[[str, int], Sequence[Case]]  # (mode, batch) -> ours and the opponent


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target, the measured value, and whether the target is met."""

    target: str
    found: float
    met: bool

    def __str__(self) -> str:
        return f"{'met' if self.met else 'MISSED':8}{self.target}: {self.found:.3g}"


def run(cases_of: CasesOf, rounds: int, seconds: float, cache: Path, platform: str) -> list[dict]:
    """Compares, measures and judges; prints everything.

    Args:
      cases_of: Returns the cases for a mode and a batch size.
      rounds: Rounds of each measurement.
      seconds: Seconds of a round.
      cache: Folder for compiled programs.
      platform: Platform of the device, "gpu"; "cpu" for a rehearsal.

    Returns:
      All numbers.

    Raises:
      UserError: If there is no such device, or its results differ from the CPU's.
    """
    require(speed.limits(cases_of("train", TRAIN_BATCH)[0], cache), platform)
    case = cases_of("train", 2)[0]
    float32 = dataclasses.replace(case, fields={**case.fields, "dtype": "float32"})
    verdicts = judge_parity(parity.compare(float32, platform, cache))
    print(*verdicts, sep="\n", flush=True)
    if not all(verdict.met for verdict in verdicts):
        raise UserError("the device's results differ from the CPU's, so nothing was measured")
    found = []
    for mode, batch in (("train", TRAIN_BATCH), *(("infer", batch) for batch in INFER_BATCHES)):
        cases = cases_of(mode, batch)
        limits = speed.limits(cases[0], cache)
        results = speed.measure(cases, rounds, seconds, cache)
        print(f"\n{mode}, batch {batch}", speed.limits_line(limits), sep="\n")
        print(speed.table(results, limits), flush=True)
        verdicts += judge(mode, batch, results, limits)
        found.append({"limits": limits, "results": [dataclasses.asdict(each) for each in results]})
    print("", *verdicts, sep="\n")
    return [*found, {"verdicts": [dataclasses.asdict(verdict) for verdict in verdicts]}]


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


def judge_parity(differences: Mapping[str, float]) -> list[Verdict]:
    """Whether the device's results equal the CPU's."""
    return [
        Verdict(f"{what} equal to the CPU's within {limit:g}", differences[what], met)
        for what, limit in parity.TOLERANCE.items()
        for met in [differences[what] <= limit]
    ]


def judge(
    mode: str, batch: int, results: Sequence[Result], limits: Mapping[str, Any]
) -> Iterator[Verdict]:
    """The targets of one measurement; `results` are ours and the opponent's."""
    ours, theirs = results
    ratio = theirs.ours_over_theirs.median
    name = f"{mode}, batch {batch}"
    target = f"{name}, ours / {theirs.contender} at least {MIN_RATIO}"
    yield Verdict(target, ratio, ratio >= MIN_RATIO)
    if mode == "train":
        share = ours.images_per_second.median / limits["roofline"]
        target = f"{name}, share of the no-overlap roofline at least {MIN_ROOFLINE_SHARE}"
        yield Verdict(target, share, share >= MIN_ROOFLINE_SHARE)
