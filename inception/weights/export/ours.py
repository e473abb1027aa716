"""Our own format: the directory that `weights.save` writes."""

from pathlib import Path

import jax
import numpy as np

from inception.weights.export.format import Format
from inception.weights.files import WeightsError
from inception.weights.pretrained import Pretrained, describe, load, save


def _write(pretrained: Pretrained, path: Path, _: bool) -> list[str]:
    save(path, pretrained)
    return ["read it with inception.load_pretrained"]


def _verify(pretrained: Pretrained, path: Path, _: bool) -> list[str]:
    back = load(path)
    same = jax.tree.map(np.array_equal, back.variables, pretrained.variables)
    if not (jax.tree.all(same) and describe(back) == describe(pretrained)):
        raise WeightsError("what was written reads back differently. Nothing is kept")
    return ["verified: every array reads back the same"]


FORMATS = {"safetensors": Format((), _write, _verify)}
