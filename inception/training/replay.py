"""Computes one step of a run again: main.py --mode=replay --step=N --config=... --workdir=...

The newest checkpoint before the step is restored, and the steps after it are computed again. A
batch is a pure function of (seed, step), so the same machine gets the same metrics, bit for bit,
and the step's images can be looked at. The run itself is not changed.
"""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from inception import config as settings
from inception.data import augment
from inception.data.datasets import open_train_source
from inception.data.folder import printable
from inception.data.sources import Source
from inception.distributed import sharding
from inception.errors import CheckpointError
from inception.show import page
from inception.training import finetune
from inception.training.run import TrainingRun
from inception.training.state import TrainState
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.identity import check_resumable, has_checkpoint, read_config, resolve_workdir
from inception.workdir.logbook import log

_MAX_ROWS = 16  # of the picture


def replay_step(
    config: ConfigDict, workdir: epath.PathLike, step: int, source: Source | None = None
) -> dict[str, Any]:
    """Computes a step of the run in `workdir` again, prints its metrics and draws its images.

    Args:
      config: Config of the run.
      workdir: Workdir of the run; receives replay_STEP.png, the images as the network sees them.
      step: Number of the step, 1 for the first.
      source: Data that the run trains on; None for the config's.

    Returns:
      The step's metrics by name, "finite" (whether it was applied), "block_grad_norms" by block,
      and for every example of the batch its "epoch", "example" (index) and "label", as lists.

    Raises:
      CheckpointError: If there is no run of this config and data in the workdir, or it has no such
        step.
      TrainingError: With config.debug.nans, naming the operation that makes a NaN.
    """
    settings.validate(config)
    workdir = resolve_workdir(workdir)
    read_config(workdir)  # there must be a run
    before = _newest_before(workdir, step)
    config, weights = finetune.prepare(config, workdir if before else None)
    source = source or open_train_source(config)
    check_resumable(workdir, config, source)
    run = TrainingRun(config, workdir, source, weights)
    if not 1 <= step <= run.num_steps:
        raise CheckpointError(f"--step={step}: the run in {workdir} has {run.num_steps} steps")
    state = _state_after(run, before)
    log(f"from step {before}, {step - before} to compute")
    metrics, batch = _compute(run, state, step)
    images = _as_seen(config, batch)
    labels = [_name(source.class_names, label) for label in batch["label"].tolist()]
    _print(step, metrics, batch, labels)
    _draw(workdir, step, batch, images, labels)
    return {**metrics, **{name: batch[name].tolist() for name in ("epoch", "example", "label")}}


def _newest_before(workdir: epath.Path, step: int) -> int:
    """The newest checkpoint before `step`, 0 if there is none."""
    if not has_checkpoint(workdir):
        return 0
    with Checkpoints(workdir) as checkpoints:
        return max((saved for saved in checkpoints.steps() if saved < step), default=0)


def _state_after(run: TrainingRun, step: int) -> TrainState:
    """The state after `step`, which is 0 or has a checkpoint."""
    if not step:
        return run.first_state()
    with Checkpoints(run.workdir) as checkpoints:
        return run.restore(checkpoints, step)


def _compute(
    run: TrainingRun, state: TrainState, step: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metrics of `step` as numbers, and its batch."""
    first, blocks = int(state.step), run.recipe.blocks(state.params)
    state = run.step.pack(state)
    for number, batch in zip(range(first + 1, step + 1), run.batches(first), strict=False):
        state, metrics = run.compute(number, state, batch)
    fetched = jax.device_get(metrics)
    norms = map(float, fetched.pop("block_grad_norms"))
    numbers = {name: float(value) for name, value in fetched.items()}
    numbers |= {"finite": bool(fetched["finite"])}
    batch = multihost_utils.process_allgather(batch, tiled=True)
    return {**numbers, "block_grad_norms": dict(zip(blocks, norms, strict=True))}, batch


def _as_seen(config: ConfigDict, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The images as the network sees them (before mixup), float in [0, 1]."""
    keys = augment.keys(config.seed, batch["epoch"], batch["example"])
    std, mean = config.input_std, config.input_mean
    images = augment.augment(keys, batch["image"], config.augmentation, mean, std)
    return np.clip(np.asarray(images) * np.array(std) + np.array(mean), 0, 1)


def _name(class_names: Sequence[str], label: int) -> str:
    return printable(class_names[label]) if class_names else f"class {label}"


def _print(
    step: int, metrics: dict[str, Any], batch: dict[str, np.ndarray], labels: Sequence[str]
) -> None:
    """Prints the step's numbers and examples."""
    log(f"step {step}: {'applied' if metrics['finite'] else 'not finite, skipped'}")
    for name, value in metrics.items():
        if isinstance(value, float):
            log(f"  {name:<16} {value:.6g}")
    log("  gradient norms:")
    for name, norm in metrics["block_grad_norms"].items():
        log(f"    {name:<14} {norm:.4g}")
    for epoch in np.unique(batch["epoch"]):
        here = np.flatnonzero(batch["epoch"] == epoch).tolist()
        examples = ", ".join(f"{batch['example'][i]} ({labels[i]})" for i in here)
        log(textwrap.fill(f"examples of epoch {epoch}: {examples}", 100, subsequent_indent="  "))


def _draw(
    workdir: epath.Path,
    step: int,
    batch: dict[str, np.ndarray],
    images: np.ndarray,
    labels: Sequence[str],
) -> None:
    """Writes WORKDIR/replay_STEP.png, the first images of the batch."""
    if not sharding.is_main_process():
        return
    width, shown = page.COLUMNS, images[: _MAX_ROWS * page.COLUMNS]
    captions = [f"{n} {label}" for n, label in zip(batch["example"], labels, strict=True)]
    rows = [
        page.Row("", shown[i : i + width], captions[i : i + width])
        for i in range(0, len(shown), width)
    ]
    details = f"{len(shown)} of {len(images)} images as the network sees them: index, class"
    figure, png = page.draw(page.Part(f"Step {step}", details, rows)), io.BytesIO()
    figure.savefig(png, format="png", bbox_inches="tight", pad_inches=0.15)
    file = workdir / f"replay_{step}.png"
    file.write_bytes(png.getvalue())
    log(f"{file}: the images")
