"""Whether an accelerator computes what the CPU does: logits and gradients, float32, one network.

    python -m benchmarks.parity WORK FILE.npz

writes what the first device of the process computes, at full precision (no TF32): the logits of
both heads and the gradients of a loss on them, normalized by made-up running statistics. A fresh
network that normalizes by its batch would magnify rounding too much to tell anything. Rounding can
still switch a ReLU, which changes that draw's gradients, so there are several draws of images.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from benchmarks.ours import config_of, random_variables
from benchmarks.turns import environment
from benchmarks.work import Work
from inception.network.model import make_model

DRAWS = 4
JAX_NAMES = {"gpu": "cuda"}  # of platforms, where they are chosen
TOLERANCE = {"logits": 1e-4, "gradients": 1e-3}  # of the largest logit; of the gradient's norm


def compute(work: Work) -> dict[str, np.ndarray]:
    """Logits of both heads, [2, batch, classes], and the flat gradient, of every draw."""
    model = make_model(config_of(work), work.num_classes)
    variables = random_variables(model, work.size)
    labels = jnp.tile(jnp.arange(work.batch) % work.num_classes, (2, 1))  # of both heads

    @jax.jit
    @jax.default_matmul_precision("highest")
    def both(variables: dict, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        def loss(params: dict) -> tuple[jax.Array, jax.Array]:
            given = {**variables, "params": params}
            logits, endpoints = model.apply(given, images, train=False, aux_head=True)
            heads = jnp.stack([logits, endpoints["aux_logits"]])
            return optax.softmax_cross_entropy_with_integer_labels(heads, labels).mean(), heads

        gradient, heads = jax.grad(loss, has_aux=True)(variables["params"])
        return heads, ravel_pytree(gradient)[0]

    found: dict[str, np.ndarray] = {}
    for draw in range(DRAWS):
        shape = (work.batch, work.size, work.size, 3)
        images = np.random.default_rng(draw).uniform(-1, 1, shape).astype(np.float32)
        heads, gradient = both(variables, images)
        found |= {f"logits {draw}": np.asarray(heads), f"gradients {draw}": np.asarray(gradient)}
    return found


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """How far apart two results are, of the best draw: as TOLERANCE says."""
    logits, gradients = [], []
    for draw in range(DRAWS):
        a, b = found[f"logits {draw}"], expected[f"logits {draw}"]
        logits.append(float(np.abs(a - b).max() / np.abs(b).max()))
        a, b = found[f"gradients {draw}"], expected[f"gradients {draw}"]
        gradients.append(float(np.linalg.norm(a - b) / np.linalg.norm(b)))
    return {"logits": min(logits), "gradients": min(gradients)}


def compare(work: Work, platform: str, cache: Path) -> dict[str, float]:
    """The differences between a platform, "gpu" for instance, and the CPU; each in a process."""
    results: list[dict[str, np.ndarray]] = []
    for name in (platform, "cpu"):
        file = cache / f"parity_{len(results)}.npz"
        subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.parity"),
                *(json.dumps(dataclasses.asdict(work)), str(file)),
            ],
            check=True,
            env=environment(work.threads, cache) | {"JAX_PLATFORMS": JAX_NAMES.get(name, name)},
        )
        with np.load(file) as arrays:
            results.append(dict(arrays))
    return differences(*results)


if __name__ == "__main__":
    arrays: dict[str, Any] = {**compute(Work(**json.loads(sys.argv[1])))}
    np.savez(sys.argv[2], **arrays)
