"""What a network is made of, a line per stage: the table at the start of a run."""

import dataclasses
from collections.abc import Sequence

import jax
from clu import parameter_overview


@dataclasses.dataclass(frozen=True)
class _Line:
    stage: str
    arrays: int
    parameters: int
    share: str
    trained: str


def table(params: dict, frozen: Sequence[str] = ()) -> str:
    """The number of parameters of every stage and head, in the order of their names.

    Args:
      params: arrays, or their shapes.
      frozen: stages that are not trained.
    """
    leaves = {stage: jax.tree.leaves(params[stage]) for stage in sorted(params)}
    counts = {stage: sum(leaf.size for leaf in arrays) for stage, arrays in leaves.items()}
    total = sum(counts.values())
    lines = [
        _Line(
            stage,
            len(arrays),
            counts[stage],
            f"{counts[stage] / total:.1%}",
            "no" if stage in frozen else "yes",
        )
        for stage, arrays in leaves.items()
    ]
    return parameter_overview.make_table(lines)
