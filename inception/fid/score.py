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
    """exp(mean KL(p(y|x) || p(y))), as mean and deviation over parts of the set.

    Args:
      logits: [n, classes]; the published scores take FID's 1008 without bias.
      splits: Number of parts, as equal as can be.
      seed: Of the permutation before the split, torch-fidelity's by default; None: as given, as
        StyleGAN does.
      block: Images of a part, in the order given and with a smaller last part: ADM's is 5000.
        None: `splits` parts.

    Raises:
      UserError: for fewer images than parts, or logits that are not finite.
    """
    logits = np.asarray(logits, np.float64)
    count = len(logits)
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise UserError("logits must be [images, classes] and finite: look for NaN in the images")
    if block:
        parts = [logits[start : start + block] for start in range(0, count, block)]
    else:
        order = np.arange(count) if seed is None else np.random.RandomState(seed).permutation(count)
        ends = [number * count // splits for number in range(splits + 1)]
        parts = [logits[order[a:b]] for a, b in itertools.pairwise(ends)]
    if not parts or min(map(len, parts)) < 1:
        raise UserError(f"{count} images cannot be split into {splits} parts: use more images")
    scores = [_score(part) for part in parts]
    return MeanAndStd(float(np.mean(scores)), float(np.std(scores)))


def _score(logits: np.ndarray) -> float:
    log_p = special.log_softmax(logits, axis=1)
    p = np.exp(log_p)
    divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1)
    return float(np.exp(divergence.mean()))
