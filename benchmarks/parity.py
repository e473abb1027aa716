"""Compares an accelerator's logits and gradients with the CPU's, float32, for one network.

    python -m benchmarks.parity CASE FILE.npz

writes what the process's first device computes at full precision (no TF32): logits of both heads,
and gradients of a loss on them, normalized by random running statistics; normalizing by the batch
would magnify rounding in a fresh network. As rounding can still switch a ReLU, which changes the
gradients, there are several draws of images, and the best counts.
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

from benchmarks.cases import Case
from benchmarks.interleave import environment
from benchmarks.ours import config_of, random_variables
from inception.network.model import make_model

DRAWS = 4
JAX_NAMES = {"gpu": "cuda"}  # of platforms, for JAX_PLATFORMS
TOLERANCE = {
    "logits": 1e-4,
    "gradients": 1e-3,
}  # relative to the largest logit, the gradient's norm


def compute(case: Case) -> dict[str, np.ndarray]:
    """Logits of both heads, [2, batch, classes], and the flat gradient, for every draw."""
    model = make_model(config_of(case), case.num_classes)
    variables = random_variables(model, case.size)
    labels = jnp.tile(jnp.arange(case.batch) % case.num_classes, (2, 1))  # of both heads

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
        shape = (case.batch, case.size, case.size, 3)
        images = np.random.default_rng(draw).uniform(-1, 1, shape).astype(np.float32)
        heads, gradient = both(variables, images)
        found |= {f"logits {draw}": np.asarray(heads), f"gradients {draw}": np.asarray(gradient)}
    return found


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative differences of the best draw, in the units of `TOLERANCE`."""
    logits, gradients = [], []
    for draw in range(DRAWS):
        a, b = found[f"logits {draw}"], expected[f"logits {draw}"]
        logits.append(float(np.abs(a - b).max() / np.abs(b).max()))
        a, b = found[f"gradients {draw}"], expected[f"gradients {draw}"]
        gradients.append(float(np.linalg.norm(a - b) / np.linalg.norm(b)))
    return {"logits": min(logits), "gradients": min(gradients)}


def compare(case: Case, platform: str, cache: Path) -> dict[str, float]:
    """Differences between a platform, e.g. "gpu", and the CPU, each in a process of its own."""
    results: list[dict[str, np.ndarray]] = []
    for name in (platform, "cpu"):
        file = cache / f"parity_{len(results)}.npz"
        subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.parity"),
                *(json.dumps(dataclasses.asdict(case)), str(file)),
            ],
            check=True,
            env=environment(case.threads, cache) | {"JAX_PLATFORMS": JAX_NAMES.get(name, name)},
        )
        with np.load(file) as arrays:
            results.append(dict(arrays))
    return differences(*results)


if __name__ == "__main__":
    arrays: dict[str, Any] = {**compute(Case(**json.loads(sys.argv[1])))}
    np.savez(sys.argv[2], **arrays)
