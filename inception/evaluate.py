"""Evaluation: every image once, its crops' probabilities averaged, then the models'.

The same code serves the training loop, `--mode=eval` and notebooks.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from inception import config as config_lib
from inception import logbook, metrics, sharding
from inception import workdir as runs
from inception.augment import normalize
from inception.data import DataError
from inception.data.exclude import Excluded
from inception.data.sources import Source, open_source
from inception.data.stream import eval_stream
from inception.errors import ConfigError
from inception.model import Inception
from inception.state import TrainState

WEIGHTS = ("ema", "raw")


class Evaluator:
    """Evaluates models on a source, again and again with other weights.

    Args:
      config: of the evaluation: image_size, eval.*.
      source: the images and labels.
      models: one, or several whose probabilities are averaged (section 9, table 5).
      mesh: the devices.

    Raises:
      DataError: if config.eval.exclude names none of the images; when called, if nothing is left
        to count.
    """

    def __init__(self, config: ConfigDict, source: Source, models: Sequence[Inception], mesh: Mesh):
        self._config, self._source, self._mesh = config, source, mesh
        self.listed = 0  # images that config.eval.exclude names
        if config.eval.exclude:
            excluded = Excluded(config.eval.exclude)
            excluded.check(source)
            self.listed = len(excluded)
        self._models = tuple(models)
        self._classes = present_classes(source) if config.eval.classes == "present" else None
        self._log_probabilities = jax.jit(log_probabilities, static_argnames=("model", "crops"))
        self._count = jax.jit(_count, out_shardings=sharding.replicated(mesh))

    def __call__(self, states: Sequence[TrainState], step: int) -> dict:
        """Counts every example of the source once.

        Args:
          states: one a model.
          step: that the results are said to be of.

        Returns:
          {"step", "split", "examples" (those counted), "excluded" (the others: on the list of
          config.eval.exclude, or without a label), "ema": {...}, "raw": {...}}, see
          `metrics.summarize`.
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
                parts = self._parts([state.variables(weights) for state in states], batch["image"])
                totals[weights] = metrics.add(totals[weights], self._count(parts, batch))
        if not totals["ema"]["examples"]:
            raise DataError(
                f"{self._config.eval.split}: none of {len(self._source):,} images is left to "
                f"count; config.eval.exclude={self._config.eval.exclude!r}"
            )
        return {
            "step": step,
            "split": self._config.eval.split,
            "examples": int(totals["ema"]["examples"]),
            "excluded": int(totals["ema"]["seen"] - totals["ema"]["examples"]),
            **{weights: metrics.summarize(total) for weights, total in totals.items()},
        }

    def _parts(self, variables: Sequence[dict], images: jax.Array) -> list[jax.Array]:
        """Every model's log-probabilities, for as many crops at a time as eval.batch_size says."""
        batch, crops = images.shape[:2]
        size = crops_per_pass(batch, crops, self._config.eval.batch_size)
        return [
            self._log_probabilities(model, member, images, self._classes, first, crops=size)
            for model, member in zip(self._models, variables, strict=True)
            for first in range(0, crops, size)
        ]


def crops_per_pass(images: int, crops: int, limit: int) -> int:
    """How many crops of each image go through the network at once.

    Args:
      images: in a batch.
      crops: of each image.
      limit: crops in a pass, over all images; at least one of each image goes through.
    """
    fits = (n for n in range(crops, 1, -1) if crops % n == 0 and images * n <= limit)
    return next(fits, 1)


def log_probabilities(
    model: Inception,
    variables: dict,
    images: jax.Array,
    classes: np.ndarray | None = None,
    first: ArrayLike = 0,
    crops: int = 1,
) -> jax.Array:
    """Log of the class probabilities averaged over some of an image's crops.

    Args:
      model: the network.
      variables: its "params" and "batch_stats".
      images: uint8 [batch, all crops, height, width, 3].
      classes: bool [classes], False for those that cannot be the answer; None: all can.
      first: number of the first crop that is looked at.
      crops: how many are.

    Returns:
      float32 [batch, classes].
    """
    images = jax.lax.dynamic_slice_in_dim(images, first, crops, axis=1)
    batch = images.shape[0]
    flat = normalize(images.reshape(-1, *images.shape[2:]))
    logits, _ = model.apply(variables, flat, train=False)
    if classes is not None:
        logits = jnp.where(classes, logits, -jnp.inf)
    by_crop = jax.nn.log_softmax(logits).reshape(batch, crops, -1)
    return _log_mean(by_crop.swapaxes(0, 1))


def _count(parts: Sequence[jax.Array], batch: dict) -> dict:
    """Sums over a batch, of the mean of equally large parts [batch, classes] of the answer."""
    sums = metrics.count(_log_mean(jnp.stack(parts)), batch["label"], batch["mask"])
    return sums | {"seen": (batch["example"] >= 0).sum()}


def _log_mean(log_p: jax.Array) -> jax.Array:
    """Log of the mean over the first axis of probabilities given as logs, [n, batch, classes]."""
    return jax.nn.logsumexp(log_p, axis=0) - jnp.log(log_p.shape[0])


def present_classes(source: Source) -> np.ndarray:
    """Which classes have an example, bool [classes].

    ImageNet-A and -R hold 200 of ImageNet's 1,000 classes, and their authors let a network choose
    among those alone.
    """
    labels = np.concatenate([np.atleast_1d(source[index][1]) for index in range(len(source))])
    return np.isin(np.arange(source.num_classes), labels)


def evaluate(
    config: ConfigDict,
    workdir: str | Path,
    step: int | None = None,
    source: Source | None = None,
) -> dict:
    """Evaluates the newest checkpoint of a workdir, or that of `step`, raw and EMA weights.

    Prints a line and writes the results to WORKDIR/eval_SPLIT_STEP.json, with a picture of the
    confusion matrix for up to 50 classes. With config.eval.ensemble, the runs or checkpoints that
    it names are evaluated together instead, and the workdir only receives the results.

    Args:
      config: as in training; eval.* and the data set may be others.
      workdir: of a run.
      step: which checkpoint; None for the newest.
      source: the images; None for the config's evaluation split.

    Returns:
      The results, see `Evaluator`, with the settings: "members" (the checkpoints), "dataset",
      "data_dir", "image_size", "dtype" and "eval" (of the config).

    Raises:
      CheckpointError: if there is no such checkpoint, it holds another network, or its classes
        are not the data's.
      ConfigError: for a config that makes no sense.
    """
    config_lib.validate(config)
    workdir = runs.as_workdir(workdir)
    located = _located(config, workdir, step)
    source = source or open_source(config, config.eval.split)
    mesh = sharding.make_mesh()
    for directory, _ in located:
        runs.check_classes(directory, source.class_names)
    members = [
        runs.restore(directory, source.num_classes, number, config.dtype, mesh)
        for directory, number in located
    ]
    if len({(member.workdir.resolve(), member.step) for member in members}) < len(members):
        raise ConfigError(f"config.eval.ensemble={config.eval.ensemble!r} names a checkpoint twice")
    evaluator = Evaluator(config, source, [member.model for member in members], mesh)
    last = max(member.step for member in members)
    settings = {
        "members": [str(member.workdir / "checkpoints" / str(member.step)) for member in members],
        "dataset": config.dataset,
        "data_dir": config.data_dir,
        "image_size": config.image_size,
        "dtype": config.dtype,
        "eval": config.eval.to_dict(),
    }
    results = settings | evaluator([member.state for member in members], last)
    logbook.log(f"step {last}  {logbook.summary(results)}")
    if evaluator.listed > results["excluded"]:
        listed = f"of {evaluator.listed:,} images in {config.eval.exclude}"
        logbook.log(f"warning: {listed} some are not in the split")
    name = _free_name(workdir, _name(config, members), settings)
    leave(workdir, name, results, source.class_names)
    return results


def _located(config: ConfigDict, workdir: Path, step: int | None) -> list[tuple[Path, int | None]]:
    """The workdirs and steps to evaluate together: config.eval.ensemble's, or this one alone."""
    paths = [name.strip() for name in config.eval.ensemble.split(",") if config.eval.ensemble]
    if not all(paths):
        raise ConfigError(
            f"config.eval.ensemble={config.eval.ensemble!r}; it must be DIR1,DIR2,... without gaps"
        )
    if paths and step is not None:
        raise ConfigError(
            f"--step={step} and config.eval.ensemble: name WORKDIR/checkpoints/{step} in it instead"
        )
    if paths:
        return [runs.locate(path) for path in paths]
    runs.check_model(workdir, config)
    return [(workdir, step)]


def _name(config: ConfigDict, members: Sequence[runs.Trained]) -> str:
    """What a file of results is called: by data set, split, step or number of members, crops."""
    other = [config.dataset] if config.dataset != members[0].config.dataset else []
    which = str(members[0].step) if len(members) == 1 else f"ensemble_of_{len(members)}"
    crops = [f"{config.eval.crops}_crops"] if config.eval.crops > 1 else []
    words = "_".join(["eval", *other, config.eval.split, which, *crops])
    return "".join(c if c.isalnum() else "_" for c in words)


def _free_name(workdir: Path, name: str, settings: dict) -> str:
    """NAME, or NAME_2 and so on, where no evaluation of other settings has left its results."""

    def is_free(name: str) -> bool:
        file = workdir / f"{name}.json"
        return not file.exists() or settings == {
            key: value for key, value in json.loads(file.read_text()).items() if key in settings
        }

    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(filter(is_free, names))


def leave(workdir: str | Path, name: str, results: dict, class_names: Sequence[str]) -> None:
    """Writes NAME.json and, for up to 50 classes, the picture NAME_confusion.png."""
    logbook.write_json(Path(workdir) / f"{name}.json", results)
    if sharding.is_main_process() and "confusion" in results["ema"]:
        from inception import confusion_plot  # matplotlib takes a second

        figure = confusion_plot.draw(results, class_names)
        figure.savefig(Path(workdir) / f"{name}_confusion.png")
