"""Networks for the tests of inception.fid: FID's own, 16 channels wide nearly everywhere."""

from functools import cache

import jax
import numpy as np

from inception import Inception, Preprocessing
from inception.weights import verify
from tests.oracles import random_array

MODEL = Inception(
    1008,
    aux_head="none",
    mixed_7c_pool="max",
    batch_norm_scale=True,
    width_multiplier=0.05,
)


@cache
def loaded(seed: int = 0, model: Inception = MODEL) -> tuple:
    """What `inception.load_pretrained` returns, with random weights."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 299, 299, 3), np.float32))

    def fill(path, leaf):
        return random_array(jax.tree_util.keystr(path), leaf.shape, rng)

    return model, jax.tree_util.tree_map_with_path(fill, shapes), Preprocessing(method="resize")


def pictures(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, height, width, 3]: squares of one color under noise, each image its own."""
    rng = np.random.default_rng(seed)
    grid = (count, -(-height // 8), -(-width // 8), 3)
    base = rng.uniform(40, 215, (count, 1, 1, 3)) + rng.uniform(-60, 60, grid)
    pixels = base.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return np.clip(pixels + rng.uniform(-30, 30, pixels.shape), 0, 255).astype(np.uint8)


def difference(ours, theirs) -> float:
    """The largest difference of any value, relative to the largest value."""
    return verify.difference("", np.asarray(ours), np.asarray(theirs)).relative
