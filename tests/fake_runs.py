"""Trains nothing: writes what runs leave in their workdirs, with chosen errors or weights."""

import json
import math

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from inception.distributed import sharding
from inception.evaluation import metrics
from inception.training import optimizers
from inception.training.state import build
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.identity import start_or_resume
from tests.oracles import random_array

TRAINING_EXAMPLES, EXAMPLES, CLASSES = 1437, 360, 10


def evaluation(errors: int) -> dict:
    """What an evaluation with so many wrong images comes to."""
    right, counts = EXAMPLES - errors, np.full(CLASSES, EXAMPLES / CLASSES)
    total = {
        "examples": EXAMPLES,
        "top1": right,
        "top5": EXAMPLES - errors // 10,
        "loss": 0.5 * EXAMPLES + errors,
        "confidence": 0.9 * EXAMPLES,
        "not_finite": 0,
        "bin_examples": np.array([EXAMPLES]),
        "bin_correct": np.array([right]),
        "bin_confidence": np.array([0.9 * EXAMPLES]),
        "class_examples": counts,
        "class_correct": counts * right / EXAMPLES,
        "wrong": np.arange(errors),
    }
    return metrics.summarize(total)


def write_run(config: ConfigDict, workdir: epath.Path, ema_errors: int, raw_errors: int) -> dict:
    """Writes the files of a finished run whose last evaluation has so many wrong images."""
    steps_per_epoch = TRAINING_EXAMPLES / config.batch_size
    last = optimizers.num_steps(config, steps_per_epoch)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(config.to_json())
    data = {"training_images": TRAINING_EXAMPLES, "classes": [str(i) for i in range(CLASSES)]}
    (workdir / "data.json").write_text(json.dumps(data))
    noise = np.random.default_rng(config.seed)
    lines = []
    for step in [*range(config.log_every_steps, last, config.log_every_steps), last]:
        epoch = step / steps_per_epoch
        error = 0.9 * math.exp(-0.5 * epoch) * noise.uniform(0.8, 1.2)
        lines += [{"step": step, "epoch": epoch, "train/top1": 1 - error}]
    every = round(config.eval.every_epochs * steps_per_epoch)
    for step in [*range(every, last, every), last]:
        start = math.exp(-0.35 * step / steps_per_epoch) * noise.uniform(0.9, 1.1)
        error = ema_errors / EXAMPLES if step == last else ema_errors / EXAMPLES + 0.9 * start
        lines += [{"step": step, "eval/ema_top1": 1 - error}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)
    results = {"step": last, "split": config.eval.split, "examples": EXAMPLES, "excluded": 0}
    results |= {"ema": evaluation(ema_errors), "raw": evaluation(raw_errors)}
    (workdir / "results.json").write_text(json.dumps(results))
    return results


def write_checkpoint(config: ConfigDict, workdir: epath.Path, source) -> None:
    """Writes a run of one step on `source`, whose weights are drawn from config.seed."""
    start_or_resume(workdir, config, source)
    recipe, mesh = build(config, source.num_classes, steps_per_epoch=1.0), sharding.make_mesh()
    rng = np.random.default_rng(config.seed)

    def draw(path, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        is_count = np.issubdtype(leaf.dtype, np.integer)
        value = 1 if is_count else random_array(jax.tree_util.keystr(path), leaf.shape, rng)
        return jax.device_put(np.asarray(value, leaf.dtype), leaf.sharding)

    with CheckpointWriter(workdir) as saved:
        saved.save(1, jax.tree.map_with_path(draw, recipe.abstract_state(mesh)))
