"""Which checkpoints of a run are kept, and where damaged ones are moved."""

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
      newest: Number of newest checkpoints to keep, at least 1.
      every_steps: Interval of steps whose checkpoints are also kept; 0 for none.
      best: Whether the best checkpoint is also kept; see `best_step`.
    """

    newest: int = 3
    every_steps: int = 0
    best: bool = False

    def must_save(self, step: int) -> bool:
        """Whether `step` must be saved in order to be kept; evaluated steps are saved anyway."""
        return self.every_steps > 0 and step % self.every_steps == 0

    def surplus(self, steps: Sequence[int], best: int | None) -> list[int]:
        """The steps whose checkpoints can be deleted.

        Args:
          steps: Steps of all checkpoints, in ascending order.
          best: Step of the best checkpoint; see `best_step`.
        """
        return [
            step
            for step in steps[: -self.newest]
            if not self.must_save(step) and not (self.best and step == best)
        ]


def from_config(config: ConfigDict, steps_per_epoch: float) -> RetentionPolicy:
    """The policy of the fields keep_checkpoints, keep_every_epochs and keep_best."""
    every = max(1, round(config.keep_every_epochs * steps_per_epoch))
    return RetentionPolicy(
        config.keep_checkpoints, every if config.keep_every_epochs else 0, config.keep_best
    )


def best_step(workdir: epath.PathLike, steps: list[int]) -> int | None:
    """The one of `steps` with the highest top-1 (EMA) in metrics.jsonl, the last of equals.

    A step with logits that were not finite ranks below all others. None if none was evaluated.
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
    """Moves checkpoints/STEP to checkpoints/damaged/STEP, or STEP_2, ...; returns the new path."""
    folder = checkpoint.parent / "damaged"
    folder.mkdir(exist_ok=True)
    if not folder.exists():  # in a bucket a folder exists only if it contains something
        (folder / "README").write_text("Checkpoints that are not as they were saved.\n")
    names = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    free = (path for name in names if not (path := folder / f"{checkpoint.name}{name}").exists())
    return checkpoint.rename(next(free))
