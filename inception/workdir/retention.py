"""Which checkpoints of a run are kept, and where damaged ones go."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath
from ml_collections import ConfigDict

from inception.workdir.logbook import read_metrics

_SCORE = "eval/ema_top1"  # in metrics.jsonl


@dataclass(frozen=True)
class RetentionPolicy:
    """Which checkpoints are kept when a newer one is complete.

    Attributes:
      newest: how many of the newest, at least 1.
      every_steps: besides them those of every so many steps; 0: none.
      best: besides them the best that has been evaluated, see `best_step`.
    """

    newest: int = 3
    every_steps: int = 0
    best: bool = False

    def must_save(self, step: int) -> bool:
        """Whether `step` has to be saved so that it can be kept; what is evaluated always is."""
        return self.every_steps > 0 and step % self.every_steps == 0

    def surplus(self, steps: Sequence[int], best: int | None) -> list[int]:
        """Which of the steps that are there, in order, need not be kept.

        Args:
          steps: of all checkpoints.
          best: of them, see `best_step`.
        """
        return [
            step
            for step in steps[: -self.newest]
            if not self.must_save(step) and not (self.best and step == best)
        ]


def from_config(config: ConfigDict, steps_per_epoch: float) -> RetentionPolicy:
    """What the fields keep_checkpoints, keep_every_epochs and keep_best say."""
    every = max(1, round(config.keep_every_epochs * steps_per_epoch))
    return RetentionPolicy(
        config.keep_checkpoints, every if config.keep_every_epochs else 0, config.keep_best
    )


def best_step(workdir: epath.PathLike, steps: list[int]) -> int | None:
    """Which of `steps` has the highest top-1 (EMA) in metrics.jsonl, the last of equals.

    One whose logits were not finite for some image comes after all others. None if none of them
    has been evaluated.
    """
    ranks = {
        line["step"]: (not line.get("eval/ema_not_finite"), score, line["step"])
        for line in read_metrics(workdir)
        if (score := line.get(_SCORE)) is not None
    }
    return max(ranks.keys() & {*steps}, key=ranks.__getitem__, default=None)


def was_evaluated(workdir: epath.PathLike, step: int) -> bool:
    """Whether metrics.jsonl has an evaluation of `step`."""
    return any(line["step"] == step and _SCORE in line for line in read_metrics(workdir))


def quarantine(checkpoint: epath.Path) -> epath.Path:
    """Moves checkpoints/STEP to checkpoints/damaged/STEP, or STEP_2 and so on; returns where."""
    folder = checkpoint.parent / "damaged"
    folder.mkdir(exist_ok=True)
    if not folder.exists():  # in a bucket a folder is there when something is in it
        (folder / "README").write_text("Checkpoints that do not hold what was saved.\n")
    names = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    free = (place for name in names if not (place := folder / f"{checkpoint.name}{name}").exists())
    return checkpoint.rename(next(free))
