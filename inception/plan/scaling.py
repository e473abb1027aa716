"""The arithmetic of a data-parallel step on chips: what limits it, and how it scales.

A chip's step takes at least the time of its arithmetic, of its memory's traffic and of its
messages. If nothing overlaps they add up; if all overlaps the longest remains. The lower end of
what is expected here is half of the speed at which nothing overlaps: on an H100 plain
implementations of this network reach that, and on a v5e the compiler's own estimates of its cycles
add up to it.
"""

from typing import NamedTuple

from inception.plan.chips import Chip

REACHED = 0.5  # of the speed at which nothing overlaps
TRAINING = 3  # passes: forward, gradients of the inputs, gradients of the weights
LATENCY = 1e-6  # seconds of a message between neighbours


class StepTime(NamedTuple):
    """The least times of a step of one chip, in seconds."""

    arithmetic: float
    traffic: float
    interconnect: float

    @property
    def shortest(self) -> float:
        """If all overlaps."""
        return max(self)

    @property
    def longest(self) -> float:
        """What is expected at worst."""
        return sum(self) / REACHED


def step_time(
    chip: Chip, chips: int, images: int, multiply_adds: float, moved: float, message: float
) -> StepTime:
    """The times of a step in which each chip has `images`.

    Args:
      chip: of which there are `chips`.
      chips: that work together.
      images: of one chip.
      multiply_adds: of one image's forward pass.
      moved: bytes of one chip's memory traffic.
      message: bytes that are summed over all chips.
    """
    return StepTime(
        2 * TRAINING * multiply_adds * images / chip.arithmetic,
        moved / chip.traffic,
        all_reduce_time(chip, chips, message),
    )


def all_reduce_time(chip: Chip, chips: int, message: float) -> float:
    """Seconds to sum `message` bytes over all chips, every one of which ends with the sum.

    Each chip sends and receives 2 (n - 1) / n of the message, over all its links at once (Patarasuk
    & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations"), in 2 (n - 1)
    rounds along a ring, of which a torus has shorter ones: the rounds counted are those of its
    dimensions, about 4 times the root of n.
    """
    if chips == 1:
        return 0.0
    rounds = min(2 * (chips - 1), 4 * chips**0.5)
    return 2 * (chips - 1) / chips * message / (chip.interconnect / 2) + rounds * LATENCY
