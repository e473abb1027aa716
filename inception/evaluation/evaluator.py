"""Evaluates networks: every image once, averaged over its crops and then over the networks.

The training loop, `--mode=eval` and notebooks use the same code.
"""

from collections.abc import Callable, Iterator, Sequence
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
from inception.network.model import WEIGHT_KINDS, Inception
from inception.predict.predictor import Predictor, has_answer


class HasVariables(Protocol):
    """A `state.TrainState`, a `restore.TrainedRun` or a `members.Member`."""

    def variables(self, weights: str) -> dict:
        """Returns the model's variables with the "ema" or the "raw" weights."""
        ...


class Evaluator:
    """Evaluates models on a source; called again and again, with different weights.

    Args:
      config: Config of the evaluation: image_size and eval.*.
      source: Images and labels.
      models: One model, or several whose probabilities are averaged (section 10, table 5).
      mesh: Devices to evaluate on.
      preprocessings: Preprocessing for each model; None for the config's. Every image is read once
        for each different way to crop and resize it.
      classes: For each model, the network's class of every class of the data, int32
        [classes of the data], or None if they are the same; None if they are for all models.

    Raises:
      DataError: If config.eval.exclude names none of the images; when called, if no image is left
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
        self._config, self._source, self._mesh = config, source, mesh
        self._models, self._classes_of = tuple(models), classes or [None] * len(models)
        self._preprocessings = preprocessings or [settings.preprocessing(config)] * len(models)
        self._geometries = list(dict.fromkeys(map(_geometry, self._preprocessings)))
        self._excluded = Excluded(config.eval.exclude) if config.eval.exclude else None
        if self._excluded is not None:
            self._excluded.check(source)
        self._present = present_classes(source) if config.eval.classes == "present" else None
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
          members: Holders of the weights, one per model.
          step: Step that the results belong to.
          after_batch: Called after every batch; an exception from it ends the evaluation.

        Returns:
          {"step", "split", "examples" (those counted), "excluded" (the others: named by
          config.eval.exclude, or without a label), "ema": {...}, "raw": {...}}, see
          `metrics.summarize`.
        """
        same = all(member.variables("ema") is member.variables("raw") for member in members)
        kinds = ("ema",) if same else WEIGHT_KINDS
        predictors = {kind: self._predictors(members, kind) for kind in kinds}
        totals: dict[str, dict] = {kind: {} for kind in kinds}
        for images, batch in self._batches():
            for kind in kinds:
                parts = self._parts(predictors[kind], images)
                totals[kind] = metrics.add(totals[kind], self._count(parts, batch))
            after_batch()
        return self._results(step, {kind: totals.get(kind, totals["ema"]) for kind in WEIGHT_KINDS})

    def _results(self, step: int, totals: dict[str, dict]) -> dict:
        config, examples = self._config.eval, int(totals["ema"]["examples"])
        if not examples:
            raise DataError(
                f"{config.split}: none of {len(self._source):,} images is left to count; "
                f"config.eval.exclude={config.exclude!r}"
            )
        return {
            "step": step,
            "split": config.split,
            "examples": examples,
            "excluded": int(totals["ema"]["seen"]) - examples,
            **{kind: metrics.summarize(total) for kind, total in totals.items()},
        }

    def _batches(self) -> Iterator[tuple[dict[Preprocessing, jax.Array], dict]]:
        """Batches on the devices: the images by geometry, and the labels and masks."""
        streams = [sharding.to_devices(self._mesh, self._stream(g)) for g in self._geometries]
        for batches in zip(*streams, strict=True):
            images = [batch["image"] for batch in batches]
            yield dict(zip(self._geometries, images, strict=True)), batches[0]

    def _stream(self, geometry: Preprocessing) -> Iterator[dict]:
        config = self._config
        return eval_stream(
            self._source,
            geometry,
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
        """Log-probabilities [batch, classes] of each model and each pass over some of the crops."""
        batch, crops = images[self._geometries[0]].shape[:2]
        size = crops_per_pass(batch, crops, self._config.eval.batch_size)
        return [
            _log_probabilities(
                predict.on_devices(
                    _some_crops(images[_geometry(predict.preprocessing)], first, size)
                ),
                classes,
                self._present,
                size,
            )
            for predict, classes in zip(predictors, self._classes_of, strict=True)
            for first in range(0, crops, size)
        ]


def crops_per_pass(images: int, crops: int, limit: int) -> int:
    """Number of crops of each image that go through the network at once.

    Args:
      images: Images in a batch.
      crops: Crops of each image.
      limit: Crops of all images in a pass; at least one crop of each image is allowed.
    """
    fits = (n for n in range(crops, 1, -1) if crops % n == 0 and images * n <= limit)
    return next(fits, 1)


def _geometry(preprocessing: Preprocessing) -> Preprocessing:
    """The part of the preprocessing that the host does, which is all but the scaling."""
    return replace(preprocessing, mean=Preprocessing.mean, std=Preprocessing.std)


@partial(jax.jit, static_argnames="crops")
def _some_crops(images: jax.Array, first: int, crops: int) -> jax.Array:
    """[batch, all crops, height, width, 3] -> [batch * crops, height, width, 3], from `first`."""
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

    If the logits of a crop are not all finite, those of its image are NaN.

    Args:
      outputs: Outputs of the network, with "logits" [batch * crops, classes of the network].
      classes: The network's class of each class of the data, int32 [classes]; None if they
        are the same.
      present: False for classes that cannot be the answer, bool [classes]; None if all can.
      crops: Number of crops of each image.
    """
    logits = outputs["logits"]
    logits = jnp.where(has_answer(logits)[:, None], logits, jnp.nan)
    if classes is not None:
        logits = logits[:, classes]
    if present is not None:
        logits = jnp.where(present, logits, -jnp.inf)
    by_crop = jax.nn.log_softmax(logits).reshape(-1, crops, logits.shape[-1])
    return _log_mean(by_crop.swapaxes(0, 1))


def _count(parts: Sequence[jax.Array], batch: dict) -> dict:
    """Sums over a batch; the answer is the mean of equally large parts, each [batch, classes]."""
    log_p = _log_mean(jnp.stack(parts))
    sums = metrics.count(log_p, batch["label"], batch["mask"], batch["example"])
    return sums | {"seen": (batch["example"] >= 0).sum()}


def _log_mean(log_p: jax.Array) -> jax.Array:
    """Log of the mean over the first axis of probabilities given as logs, [n, batch, classes]."""
    return jax.nn.logsumexp(log_p, axis=0) - jnp.log(log_p.shape[0])


def present_classes(source: Source) -> np.ndarray:
    """Which classes have an example, bool [classes].

    ImageNet-A and ImageNet-R have 200 of ImageNet's 1,000 classes, and their authors let a network
    choose among those only.
    """
    return np.isin(np.arange(source.num_classes), source.labels())
