"""One step of a run again: python main.py --mode=replay --step=N --config=... --workdir=...

The newest checkpoint before the step is restored and the steps between are computed again. A batch
is a pure function of (seed, step), so the same machine computes the same step: its metrics, bit for
bit, and its images are there to look at. Nothing of the run is changed.
"""

import io
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import config as settings
from inception.data import augment
from inception.data.datasets import open_train_source, train_batches
from inception.data.folder import printable
from inception.data.sources import Source
from inception.distributed import sharding
from inception.errors import CheckpointError
from inception.show import page
from inception.training import finetune
from inception.training.debugging import guarded
from inception.training.state import Recipe, TrainState, build
from inception.training.step import TrainStep, blocks
from inception.weights import Pretrained
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.identity import check_resumable, has_checkpoint, read_config, resolve_workdir
from inception.workdir.logbook import log

_ROWS = 16  # of the picture


def replay_step(
    config: ConfigDict, workdir: epath.PathLike, step: int, source: Source | None = None
) -> dict[str, Any]:
    """Computes a step of the run in `workdir` again, tells what it did and draws its images.

    Args:
      config: of the run.
      workdir: of the run; receives replay_STEP.png, the images as the network sees them.
      step: 1 for the first.
      source: that the run trains on; None for the config's.

    Returns:
      The step's metrics by name, "finite" (whether it was applied), "block_grad_norms" by block,
      and for every example of the batch its "epoch", "example" (index) and "label", as lists.

    Raises:
      CheckpointError: if the workdir holds no run of this config and data, or none so long.
      TrainingError: with config.debug.nans, naming the operation that makes a NaN.
    """
    settings.validate(config)
    workdir = resolve_workdir(workdir)
    read_config(workdir)  # there must be a run
    before = _newest_before(workdir, step)
    config, weights = finetune.prepare(config, workdir if before else None)
    source = source or open_train_source(config)
    check_resumable(workdir, config, source)
    recipe = build(config, source.num_classes, len(source) / config.batch_size)
    if not 1 <= step <= recipe.num_steps:
        raise CheckpointError(f"--step={step}: the run in {workdir} has {recipe.num_steps} steps")
    mesh = sharding.make_mesh()
    state = _state(workdir, before, recipe, mesh, weights, source.class_names)
    log(f"from step {before}, {step - before} to compute")
    metrics, batch = _compute(recipe, mesh, source, state, step)
    images = _as_seen(config, batch)
    labels = [_name(source.class_names, label) for label in batch["label"].tolist()]
    _tell(step, metrics, batch, labels)
    _draw(workdir, step, batch, images, labels)
    return {**metrics, **{name: batch[name].tolist() for name in ("epoch", "example", "label")}}


def _newest_before(workdir: epath.Path, step: int) -> int:
    """The newest checkpoint before `step`, 0 if there is none."""
    if not has_checkpoint(workdir):
        return 0
    with Checkpoints(workdir) as saved:
        return max((there for there in saved.steps() if there < step), default=0)


def _state(
    workdir: epath.Path,
    step: int,
    recipe: Recipe,
    mesh: Mesh,
    weights: Pretrained | None,
    class_names: Sequence[str],
) -> TrainState:
    """The run's state after `step`, which is 0 or a checkpoint."""
    create = partial(recipe.create_state, mesh)
    if step:
        with Checkpoints(workdir) as saved:
            return saved.restore(recipe.abstract_state(mesh), step, init_missing=create)[1]
    return finetune.start(create(), weights, class_names, mesh) if weights else create()


def _compute(
    recipe: Recipe, mesh: Mesh, source: Source, state: TrainState, step: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metrics of `step` as numbers, and its batch."""
    first, names = int(state.step), blocks(state.params)
    run_step = TrainStep(recipe, mesh)
    state = run_step.pack(state)
    batches = train_batches(recipe.config, source, mesh, first)
    for number, batch in zip(range(first + 1, step + 1), batches, strict=False):
        with guarded(number, recipe.config.debug.nans):
            state, metrics = run_step(state, batch)
    fetched = jax.device_get(metrics)
    norms = map(float, fetched.pop("block_grad_norms"))
    numbers = {name: float(value) for name, value in fetched.items()}
    numbers |= {"finite": bool(fetched["finite"])}
    batch = multihost_utils.process_allgather(batch, tiled=True)
    return {**numbers, "block_grad_norms": dict(zip(names, norms, strict=True))}, batch


def _as_seen(config: ConfigDict, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The images as the network sees them (before mixup), float in [0, 1]."""
    keys = augment.keys(config.seed, batch["epoch"], batch["example"])
    std, mean = config.input_std, config.input_mean
    images = augment.augment(keys, batch["image"], config.augmentation, mean, std)
    return np.clip(np.asarray(images) * np.array(std) + np.array(mean), 0, 1)


def _name(class_names: Sequence[str], label: int) -> str:
    return printable(class_names[label]) if class_names else f"class {label}"


def _tell(
    step: int, metrics: dict[str, Any], batch: dict[str, np.ndarray], labels: Sequence[str]
) -> None:
    """Prints the step's numbers and examples."""
    log(f"step {step}: {'applied' if metrics['finite'] else 'not finite, left out'}")
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
    width, shown = page.COLUMNS, images[: _ROWS * page.COLUMNS]
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
