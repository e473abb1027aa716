"""All that is to be measured on a GPU, in one go.

    pip install -e ".[cuda]" -r requirements-oracles.txt
    python -m benchmarks --mode=gpu [--output=gpu.json]

First whether the GPU computes the CPU's logits and gradients. Then, in bfloat16 with float32
masters, the training step with 256 images and inference with 1 to 1024, against timm's network,
channels last, compiled by torch.compile with autocast; and for each target whether it holds. Not
run by the authors so far: no GPU was at hand.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import parity, speed
from benchmarks.speed import Result
from benchmarks.work import Work
from inception.errors import UserError

OPPONENT = "timm-compile"
TRAIN_BATCH = 256
INFER_BATCHES = (1, 8, 32, 128, 256, 1024)
LEAST_RATIO = 1.0  # of our images/s over theirs, in training and in inference
LEAST_OF_ROOFLINE = 0.40  # of arithmetic and traffic without overlap, in training

WorksOf = Callable[[str, int], Sequence[Work]]  # (mode, batch) -> ours and the opponent


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target, what was found, and whether it holds."""

    target: str
    found: float
    holds: bool

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'FAILS'}  {self.target}: {self.found:.3g}"


def run(works_of: WorksOf, rounds: int, seconds: float, cache: Path, platform: str) -> list[dict]:
    """Checks, measures and judges; prints all of it.

    Args:
      works_of: the sides for a mode and a batch.
      rounds: of each measurement.
      seconds: of a round.
      cache: for compiled programs.
      platform: of the device, "gpu"; the logic can be tried on "cpu".

    Returns:
      All numbers.

    Raises:
      UserError: when there is no such device, or it computes something else than the CPU.
    """
    require(speed.limits(works_of("train", TRAIN_BATCH)[0], cache), platform)
    work = works_of("train", 2)[0]
    float32 = dataclasses.replace(work, fields={**work.fields, "dtype": "float32"})
    verdicts = judge_parity(parity.compare(float32, platform, cache))
    print(*verdicts, sep="\n", flush=True)
    if not all(verdict.holds for verdict in verdicts):
        raise UserError("the device computes something else than the CPU, so nothing was measured")
    found = []
    for mode, batch in (("train", TRAIN_BATCH), *(("infer", batch) for batch in INFER_BATCHES)):
        works = works_of(mode, batch)
        limits = speed.limits(works[0], cache)
        results = speed.measure(works, rounds, seconds, cache)
        print(f"\n{mode}, batch {batch}", speed.limits_line(limits), sep="\n")
        print(speed.table(results, limits), flush=True)
        verdicts += judge(mode, batch, results, limits)
        found.append({"limits": limits, "results": [dataclasses.asdict(each) for each in results]})
    print("", *verdicts, sep="\n")
    return [*found, {"verdicts": [dataclasses.asdict(verdict) for verdict in verdicts]}]


def require(limits: Mapping[str, Any], platform: str) -> None:
    """Refuses to go on without the device.

    Raises:
      UserError: when JAX has no such device.
    """
    if limits["platform"] != platform:
        raise UserError(
            f"--mode=gpu needs a GPU, and JAX finds {limits['device']}: on a machine with one, "
            'pip install -e ".[cuda]"'
        )


def judge_parity(differences: Mapping[str, float]) -> list[Verdict]:
    """Whether the device computes what the CPU does."""
    return [
        Verdict(f"{what} equal to the CPU's within {limit:g}", differences[what], holds)
        for what, limit in parity.TOLERANCE.items()
        for holds in [differences[what] <= limit]
    ]


def judge(
    mode: str, batch: int, results: Sequence[Result], limits: Mapping[str, Any]
) -> Iterator[Verdict]:
    """The targets of one measurement; `results` are ours and the opponent's."""
    ours, theirs = results
    ratio = theirs.ours_over_theirs.median
    name = f"{mode}, batch {batch}"
    target = f"{name}, ours / {theirs.side} at least {LEAST_RATIO}"
    yield Verdict(target, ratio, ratio >= LEAST_RATIO)
    if mode == "train":
        share = ours.images_per_second.median / limits["roofline"]
        target = f"{name}, share of the no-overlap roofline at least {LEAST_OF_ROOFLINE}"
        yield Verdict(target, share, share >= LEAST_OF_ROOFLINE)
