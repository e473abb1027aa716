"""Time of a data-parallel training step on several chips, from published numbers.

A chip's step takes at least the time of its arithmetic, of its memory traffic and of its
communication: the longest of the three if they overlap, their sum if they do not. Half of the speed
without overlap is the lower end of what is expected (docs/scaling.md says why).
"""

from typing import NamedTuple

from inception.plan.chips import Chip

MIN_EFFICIENCY = 0.5  # relative to the speed without overlap
PASSES = 3  # forward, gradients of the inputs, gradients of the weights
LATENCY = 1e-6  # seconds of a message between neighboring chips


class StepTime(NamedTuple):
    """Minimum times of a chip's step, in seconds."""

    arithmetic: float
    traffic: float
    interconnect: float

    @property
    def shortest(self) -> float:
        """Time if everything overlaps."""
        return max(self)

    @property
    def longest(self) -> float:
        """Time expected in the worst case."""
        return sum(self) / MIN_EFFICIENCY


def step_time(
    chip: Chip, chips: int, images: int, multiply_adds: float, hbm_bytes: float, summed_bytes: float
) -> StepTime:
    """Estimates a training step.

    Args:
      chip: Kind of chip.
      chips: Number of chips.
      images: Images of one chip in a step.
      multiply_adds: Multiply-adds of one image's forward pass.
      hbm_bytes: Memory traffic of one chip, in bytes.
      summed_bytes: Bytes that are summed over all chips.
    """
    return StepTime(
        2 * PASSES * multiply_adds * images / chip.flops,
        hbm_bytes / chip.bandwidth,
        all_reduce_time(chip, chips, summed_bytes),
    )


def all_reduce_time(chip: Chip, chips: int, size: float) -> float:
    """Seconds of an all-reduce of `size` bytes.

    Each of n chips sends and receives 2 (n - 1) / n of the bytes, over all its links at once
    (Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations"), in
    2 (n - 1) rounds along a ring. A torus sums along one dimension after the other, in about
    4 sqrt(n) rounds.
    """
    if chips == 1:
        return 0.0
    rounds = min(2 * (chips - 1), 4 * chips**0.5)
    return 2 * (chips - 1) / chips * size / (chip.interconnect / 2) + rounds * LATENCY
