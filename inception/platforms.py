"""What a program does by the platform that it is compiled for."""

from typing import Any

import jax
from jax import lax

GPU = ("cuda", "rocm")
TPU = ("tpu",)


def barrier(arrays: Any, *platforms: str) -> Any:
    """The arrays as they are, behind a barrier on these platforms.

    There the compiler shares nothing between what is computed before it and what behind: it
    computes again what is cheaper to compute than to store until it is needed.
    """
    leaves, structure = jax.tree.flatten(arrays)
    behind = lax.platform_dependent(*leaves, default=_same, **dict.fromkeys(platforms, _behind))
    return jax.tree.unflatten(structure, behind)


# Functions of the module, not closures: JAX traces each once for arrays of a shape.
def _same(*leaves: jax.Array) -> tuple[jax.Array, ...]:
    return leaves


def _behind(*leaves: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(lax.optimization_barrier(leaves))
