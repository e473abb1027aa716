"""What a program does by the platform that it is compiled for, and the cores it may use."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax

GPU = ("cuda", "rocm")
TPU = ("tpu",)
ANY = "any"  # for `compiled_for`: no platform in particular, so that `choose` takes the default
_known: ContextVar[str | None] = ContextVar("_known", default=None)


def cores() -> int:
    """Processor cores that this process may use, which may be fewer than the machine has."""
    limited = hasattr(os, "sched_getaffinity")  # on Linux; it knows of taskset and containers
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


@contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """What is traced inside, or in the function that this decorates, is for a platform alone.

    Programs of one platform are traced in two thirds of the time. What is under `jax.jit`,
    `jax.checkpoint` or `lax.cond` by itself must not use `choose`, for JAX may have traced it for
    another platform before.

    Args:
      platform: as `jax.Device.platform` has it, or `ANY`. "gpu" may be either of `GPU`, so nothing
        is known.
    """
    token = _known.set(None if platform == "gpu" else platform)
    try:
        yield
    finally:
        _known.reset(token)


def may_be(platform: str) -> bool:
    """Whether what is traced may be compiled for a platform."""
    return _known.get() in (None, platform)


def choose(*arrays: Any, default: Callable, **ways: Callable) -> Any:
    """`ways[platform](*arrays)`, or `default(*arrays)` on a platform without one.

    The platform is that of `compiled_for`, or else what the program is lowered for.
    """
    platform = _known.get()
    if platform is None:
        return lax.platform_dependent(*arrays, default=default, **ways)
    return ways.get(platform, default)(*arrays)


def barrier(arrays: Any, *platforms: str) -> Any:
    """The arrays as they are, behind a barrier on these platforms.

    There the compiler shares nothing between what is computed before it and what behind: it
    computes again what is cheaper to compute than to store until it is needed.
    """
    leaves, structure = jax.tree.flatten(arrays)
    behind = choose(*leaves, default=_same, **dict.fromkeys(platforms, _behind))
    return jax.tree.unflatten(structure, behind)


# Functions of the module, not closures: JAX traces each once for arrays of a shape.
def _same(*leaves: jax.Array) -> tuple[jax.Array, ...]:
    return leaves


def _behind(*leaves: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(lax.optimization_barrier(leaves))
