"""What an evaluation counts: sums, which are exact over batches, and the metrics made of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

MEANS = ("top1", "top5", "loss", "confidence")
CALIBRATION_BINS = 15
MAX_CONFUSED = 50  # classes up to which there is a confusion matrix


def count(
    log_probabilities: jax.Array, labels: jax.Array, mask: jax.Array, examples: jax.Array
) -> dict:
    """Sums over the images of a batch.

    An image without an answer, because a value is NaN, none is finite or one is infinite, counts as
    classified wrongly.

    Args:
      log_probabilities: Float32 [batch, classes]; -inf for a class that cannot be the answer.
      labels: Int32 [batch], or [batch, n] where an image has several right answers, -1 for none;
        images without any are not counted.
      mask: Bool [batch], False for the padding of the last batch.
      examples: Int32 [batch], the number of each image in the split.

    Returns:
      "examples", "top1", "top5" (counts), "not_finite" (images without an answer, whose loss is not
      finite either), "loss" (cross entropy against the uniform distribution over an image's
      labels), "confidence" (probability of the predicted class); for the calibration
      "bin_examples", "bin_correct" and "bin_confidence" [15]; "class_examples" and "class_correct"
      [classes] and, for up to 50 classes, "confusion" [true, predicted], in which an image with
      several labels belongs to the first. And, not a sum, "wrong": int32 [batch], the numbers of
      the images that are counted and classified wrongly, -1 for the others.
    """
    batch, classes = log_probabilities.shape
    labels = labels.reshape(batch, -1)
    valid = labels >= 0
    mask = mask & valid.any(axis=-1)
    answered = mask & jnp.isfinite(log_probabilities.max(axis=-1))
    top = jax.lax.top_k(log_probabilities, min(5, classes))[1]
    hits = (top[:, :, None] == labels[:, None, :]).any(axis=-1) & answered[:, None]  # [batch, k]
    picked = jnp.take_along_axis(log_probabilities, jnp.maximum(labels, 0), axis=-1)
    num_labels = jnp.maximum(valid.sum(axis=-1), 1).astype(jnp.float32)
    losses = -jnp.where(valid, picked, 0).sum(axis=-1) / num_labels
    confidence = jnp.where(answered, jnp.exp(log_probabilities.max(axis=-1)), 0)
    bins = jnp.clip((confidence * CALIBRATION_BINS).astype(jnp.int32), 0, CALIBRATION_BINS - 1)
    one_hot = partial(jax.nn.one_hot, dtype=jnp.float32)
    counted, predicting = (each[:, None].astype(jnp.float32) for each in (mask, answered))
    in_bin = one_hot(bins, CALIBRATION_BINS) * counted
    in_class = one_hot(labels[:, 0], classes) * counted
    correct = hits[:, 0].astype(jnp.float32)
    sums = {
        "examples": mask.sum(),
        "top1": hits[:, 0].sum(),
        "top5": hits.any(axis=-1).sum(),
        "not_finite": (mask & ~answered).sum(),
        "loss": jnp.where(mask, losses, 0).sum(),
        "confidence": confidence.sum(),
        "bin_examples": in_bin.sum(axis=0),
        "bin_correct": correct @ in_bin,
        "bin_confidence": confidence @ in_bin,
        "class_examples": in_class.sum(axis=0),
        "class_correct": correct @ in_class,
        "wrong": jnp.where(mask & ~hits[:, 0], examples, -1),
    }
    if classes <= MAX_CONFUSED:
        predicted = one_hot(top[:, 0], classes) * predicting
        sums["confusion"] = in_class.T @ predicted
    return sums


def add(total: dict, sums: dict) -> dict:
    """Adds a batch's sums to the total so far ({} at first), in float64 on the host."""
    wrong = np.asarray(sums["wrong"])
    sums = {name: np.asarray(value, np.float64) for name, value in sums.items() if name != "wrong"}
    added = {name: total.get(name, 0) + value for name, value in sums.items()}
    return added | {"wrong": np.append(total.get("wrong", wrong[:0]), wrong[wrong >= 0])}


def summarize(total: dict) -> dict:
    """The metrics, from the sums over all batches; fractions are between 0 and 1.

    Returns:
      "top1", "top5", "loss" (nats), "confidence" (mean probability of the predicted class), "ece"
      (expected calibration error, 15 equal bins), "not_finite" (the number of images without an
      answer, which count as wrong), "per_class" (accuracies, None where a class has no image), for
      up to 50 classes "confusion" (counts, [true][predicted]), and "wrong" (the numbers in the
      split, from 0, of the images that are classified wrongly, in order).
    """
    examples = total["examples"]
    gaps = np.abs(total["bin_correct"] - total["bin_confidence"])
    classes = zip(total["class_correct"], total["class_examples"], strict=True)
    result: dict = {name: float(total[name] / examples) for name in MEANS}
    result["ece"] = float(gaps.sum() / examples)
    result["not_finite"] = int(total["not_finite"])
    result["per_class"] = [float(correct / n) if n else None for correct, n in classes]
    if "confusion" in total:
        result["confusion"] = total["confusion"].astype(int).tolist()
    result["wrong"] = np.sort(total["wrong"]).tolist()
    return result
