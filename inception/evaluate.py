"""Evaluation: every image once, its crops' probabilities averaged, then the models'.

The same code serves the training loop, `--mode=eval` and notebooks.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import checkpoints, logbook, metrics, optimizers, sharding
from inception.augment import normalize
from inception.data.sources import Source, open_source
from inception.data.stream import eval_stream
from inception.model import Inception
from inception.state import TrainState, abstract_state, make_model

WEIGHTS = ("ema", "raw")


class Evaluator:
    """Evaluates models on a source, again and again with other weights.

    Args:
      config: of the evaluation: image_size, eval.*.
      source: the images and labels.
      models: one, or several whose probabilities are averaged (section 9, table 5).
      mesh: the devices.
    """

    def __init__(self, config: ConfigDict, source: Source, models: Sequence[Inception], mesh: Mesh):
        self._config, self._source, self._mesh = config, source, mesh
        step = partial(_count, tuple(models))
        self._count = jax.jit(step, out_shardings=sharding.replicated(mesh))

    def __call__(self, states: Sequence[TrainState], step: int) -> dict:
        """Counts every example of the source once.

        Args:
          states: one a model.
          step: that the results are said to be of.

        Returns:
          {"step", "split", "examples", "ema": {...}, "raw": {...}}, see `metrics.summarize`.
        """
        batches = eval_stream(
            self._config,
            self._source,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_devices=self._mesh.size,
        )
        totals: dict[str, dict] = {weights: {} for weights in WEIGHTS}
        for batch in sharding.to_devices(self._mesh, batches):
            for weights in WEIGHTS:
                variables = [state.variables(weights) for state in states]
                totals[weights] = metrics.add(totals[weights], self._count(variables, batch))
        return {
            "step": step,
            "split": self._config.eval.split,
            "examples": int(totals["ema"]["examples"]),
            **{weights: metrics.summarize(total) for weights, total in totals.items()},
        }


def _count(models: tuple[Inception, ...], variables: Sequence[dict], batch: dict) -> dict:
    members = [
        log_probabilities(model, member, batch["image"])
        for model, member in zip(models, variables, strict=True)
    ]
    return metrics.count(_log_mean(jnp.stack(members)), batch["label"], batch["mask"])


def log_probabilities(model: Inception, variables: dict, images: jax.Array) -> jax.Array:
    """Log of the class probabilities averaged over an image's crops.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      images: uint8 [batch, crops, height, width, 3].

    Returns:
      float32 [batch, classes].
    """
    batch, crops = images.shape[:2]
    flat = normalize(images.reshape(-1, *images.shape[2:]))
    logits, _ = model.apply(variables, flat, train=False)
    by_crop = jax.nn.log_softmax(logits).reshape(batch, crops, -1)
    return _log_mean(by_crop.swapaxes(0, 1))


def _log_mean(log_p: jax.Array) -> jax.Array:
    """Log of the mean over the first axis of probabilities given as logs, [n, batch, classes]."""
    return jax.nn.logsumexp(log_p, axis=0) - jnp.log(log_p.shape[0])


def evaluate(
    config: ConfigDict,
    workdir: str | Path,
    step: int | None = None,
    source: Source | None = None,
) -> dict:
    """Evaluates the newest checkpoint of a workdir, or that of `step`, raw and EMA weights.

    Prints a line and writes the results to WORKDIR/eval_SPLIT_STEP.json.

    Args:
      config: as in training; eval.* and the data set may be others.
      workdir: of a run.
      step: which checkpoint; None for the newest.
      source: the images; None for the config's evaluation split.

    Returns:
      The results, see `Evaluator`.

    Raises:
      CheckpointError: if there is no such checkpoint or it holds another network.
    """
    mesh = sharding.make_mesh()
    source = source or open_source(config, config.eval.split)
    model = make_model(config, source.num_classes)
    step, state = restore(config, model, workdir, step, mesh)
    results = Evaluator(config, source, [model], mesh)([state], step)
    split = "".join(c if c.isalnum() else "_" for c in config.eval.split)
    write_json(Path(workdir) / f"eval_{split}_{step}.json", results)
    logbook.say(f"step {step}  {logbook.summary(results)}")
    return results


def restore(
    config: ConfigDict, model: Inception, workdir: str | Path, step: int | None, mesh: Mesh
) -> tuple[int, TrainState]:
    """Reads a run's checkpoint for evaluation.

    Raises:
      CheckpointError: if it is not there or does not fit.
    """
    checkpoints.check_model(workdir, config)
    optimizer = optimizers.make_optimizer(config, lambda _: 0.0)
    with checkpoints.Checkpoints(workdir) as saved:
        return saved.restore(abstract_state(config, model, optimizer, mesh), step)


def write_json(file: Path, results: dict | list) -> None:
    """Writes JSON for people and programs, from one process."""
    if sharding.is_main_process():
        file.write_text(json.dumps(results, indent=2) + "\n")
