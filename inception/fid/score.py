"""The Inception Score (arXiv 1606.03498), of logits without bias, in float64."""

import itertools

import numpy as np
from scipy import special

from inception.fid.bridge import UserError
from inception.fid.kernel import MeanAndStd


def inception_score(
    logits: np.ndarray,
    *,
    splits: int = 10,
    seed: int | None = 2020,
    block: int | None = None,
) -> MeanAndStd:
    """exp(mean KL(p(y|x) || p(y))), as mean and standard deviation over parts of the set.

    Args:
      logits: [n, classes]; the published scores take FID's 1008 without bias.
      splits: Number of parts, whose sizes differ by at most one image.
      seed: Seed of the permutation before the split, torch-fidelity's by default; None keeps the
        given order, as StyleGAN does.
      block: Number of images in a part, in the given order and with a smaller last part; ADM's is
        5000. None for `splits` parts.

    Raises:
      UserError: If there are fewer images than parts, or logits are not finite.
    """
    logits = np.asarray(logits, np.float64)
    count = len(logits)
    check_parts(count, 1 if block else splits)
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise UserError("logits must be [images, classes] and finite: look for NaN in the images")
    if block:
        parts = [logits[start : start + block] for start in range(0, count, block)]
    else:
        order = np.arange(count) if seed is None else np.random.RandomState(seed).permutation(count)
        ends = [number * count // splits for number in range(splits + 1)]
        parts = [logits[order[a:b]] for a, b in itertools.pairwise(ends)]
    scores = [_score(part) for part in parts]
    return MeanAndStd(float(np.mean(scores)), float(np.std(scores)))


def check_parts(count: int, splits: int) -> None:
    """Refuses more parts than images.

    Raises:
      UserError: If `splits` is not between 1 and `count`.
    """
    if not 1 <= splits <= count:
        raise UserError(f"{count} images cannot be split into {splits} parts: use more images")


def _score(logits: np.ndarray) -> float:
    log_p = special.log_softmax(logits, axis=1)
    p = np.exp(log_p)
    divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1)
    return float(np.exp(divergence.mean()))
