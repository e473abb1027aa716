"""Counts answers: every image once, its crops' probabilities averaged, then the models'.

The same code serves the training loop, `--mode=eval` and notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import config as settings
from inception.data import DataError
from inception.data.exclude import Excluded
from inception.data.preprocessing import Preprocessing
from inception.data.sources import Source
from inception.data.stream import eval_stream
from inception.distributed import sharding
from inception.evaluation import metrics
from inception.network.model import WEIGHTS, Inception
from inception.predict.predictor import Predictor


class HasVariables(Protocol):
    """A `state.TrainState`, a `workdir.TrainedRun` or a `members.Member`."""

    def variables(self, weights: str) -> dict:
        """Returns the model's variables with the "ema" or the "raw" weights."""
        ...


class Evaluator:
    """Evaluates models on a source, again and again with other weights.

    Args:
      config: of the evaluation: image_size, eval.*.
      source: the images and labels.
      models: one, or several whose probabilities are averaged (section 9, table 5).
      mesh: the devices.
      preprocessings: each model's, of the images; None: the config's. Those that crop or resize
        otherwise read every image once more.
      classes: for each model, which of its classes each of the data's is, int32 [classes]; None
        where they are the same.

    Raises:
      DataError: if config.eval.exclude names none of the images; when called, if nothing is left
        to count.
    """

    def __init__(
        self,
        config: ConfigDict,
        source: Source,
        models: Sequence[Inception],
        mesh: Mesh,
        preprocessings: Sequence[Preprocessing] | None = None,
        classes: Sequence[np.ndarray | None] | None = None,
    ):
        self._preprocessings = preprocessings or [settings.preprocessing(config)] * len(models)
        self._crops = list(dict.fromkeys(map(_geometry, self._preprocessings)))
        self._config, self._source, self._mesh = config, source, mesh
        self._models, self._classes_of = tuple(models), classes or [None] * len(models)
        self._excluded = Excluded(config.eval.exclude) if config.eval.exclude else None
        if self._excluded is not None:
            self._excluded.check(source)
        self._classes = present_classes(source) if config.eval.classes == "present" else None
        self._count = jax.jit(_count, out_shardings=sharding.replicated(mesh))

    @property
    def listed(self) -> int:
        """Number of images that config.eval.exclude names."""
        return len(self._excluded or ())

    def __call__(
        self,
        members: Sequence[HasVariables],
        step: int,
        after_batch: Callable[[], None] = lambda: None,
    ) -> dict:
        """Counts every example of the source once.

        Args:
          members: what holds the weights, one per model.
          step: that the results are said to be of.
          after_batch: is called after every batch; what it raises ends the evaluation.

        Returns:
          {"step", "split", "examples" (those counted), "excluded" (the others: on the list of
          config.eval.exclude, or without a label), "ema": {...}, "raw": {...}}, see
          `metrics.summarize`.
        """
        same = all(member.variables("ema") is member.variables("raw") for member in members)
        kinds = WEIGHTS[:1] if same else WEIGHTS
        predictors = {weights: self._predictors(members, weights) for weights in kinds}
        totals: dict[str, dict] = {weights: {} for weights in kinds}
        streams = [sharding.to_devices(self._mesh, self._batches(crop)) for crop in self._crops]
        for batches in zip(*streams, strict=True):
            images = {
                crop: batch["image"] for crop, batch in zip(self._crops, batches, strict=True)
            }
            for weights in kinds:
                parts = self._parts(predictors[weights], images)
                totals[weights] = metrics.add(totals[weights], self._count(parts, batches[0]))
            after_batch()
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
            **{
                weights: metrics.summarize(totals.get(weights, totals["ema"]))
                for weights in WEIGHTS
            },
        }

    def _batches(self, crop: Preprocessing):
        config = self._config
        return eval_stream(
            self._source,
            crop,
            batch_size=config.eval.batch_size,
            crops=config.eval.crops,
            exclude=self._excluded,
            max_pixels=config.max_pixels,
            threads=config.data_threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_devices=self._mesh.size,
        )

    def _predictors(self, members: Sequence[HasVariables], weights: str) -> list[Predictor]:
        return [
            Predictor(model, member.variables(weights), preprocessing, mesh=self._mesh)
            for model, member, preprocessing in zip(
                self._models, members, self._preprocessings, strict=True
            )
        ]

    def _parts(
        self, predictors: Sequence[Predictor], images: dict[Preprocessing, jax.Array]
    ) -> list[jax.Array]:
        """Every model's log-probabilities, for as many crops at a time as eval.batch_size says."""
        batch, crops = images[self._crops[0]].shape[:2]
        size = crops_per_pass(batch, crops, self._config.eval.batch_size)
        return [
            _log_probabilities(
                predict.on_devices(
                    _some_crops(images[_geometry(predict.preprocessing)], first, size)
                ),
                classes,
                self._classes,
                size,
            )
            for predict, classes in zip(predictors, self._classes_of, strict=True)
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


def _geometry(preprocessing: Preprocessing) -> Preprocessing:
    """What the host does of it: all but the scaling."""
    return replace(preprocessing, mean=Preprocessing.mean, std=Preprocessing.std)


@partial(jax.jit, static_argnames="crops")
def _some_crops(images: jax.Array, first: int, crops: int) -> jax.Array:
    """From [batch, all crops, height, width, 3] `crops` of each image, the batch's first axis."""
    images = jax.lax.dynamic_slice_in_dim(images, first, crops, axis=1)
    return images.reshape(-1, *images.shape[2:])


@partial(jax.jit, static_argnames="crops")
def _log_probabilities(
    outputs: dict[str, jax.Array],
    classes: np.ndarray | None,
    present: np.ndarray | None,
    crops: int,
) -> jax.Array:
    """Log of the class probabilities averaged over an image's crops, float32 [batch, classes].

    A crop whose logits are not all finite makes all its image's NaN.

    Args:
      outputs: of the network, its "logits" [batch * crops, classes of the network].
      classes: which of the network's each of the data's is, int32 [classes]; None: the same.
      present: bool [classes], False for those that cannot be the answer; None: all can.
      crops: of each image.
    """
    logits = outputs["logits"]
    logits = jnp.where(jnp.isfinite(logits).all(axis=-1, keepdims=True), logits, jnp.nan)
    if classes is not None:
        logits = logits[:, classes]
    if present is not None:
        logits = jnp.where(present, logits, -jnp.inf)
    by_crop = jax.nn.log_softmax(logits).reshape(-1, crops, logits.shape[-1])
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
    return np.isin(np.arange(source.num_classes), source.labels())
