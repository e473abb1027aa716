"""The platform that a program is traced for, the references that it uses, and the host's cores."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax

GPU = ("cuda", "rocm")
TPU = ("tpu",)
ANY = "any"  # for `compiled_for`: any platform, so that `by_platform` uses the default
OPERATIONS = ("conv", "normalize", "max_pool", "barrier")

_platform: ContextVar[str | None] = ContextVar("_platform", default=None)
_references: ContextVar[frozenset[str]] = ContextVar("_references", default=frozenset())


def cores() -> int:
    """Number of processor cores that this process may use, perhaps fewer than the machine has."""
    limited = hasattr(os, "sched_getaffinity")  # on Linux; it knows of taskset and containers
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


@contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """Programs traced inside, or in the function that this decorates, are for one platform only.

    Programs of one platform are traced in two thirds of the time. Functions under their own
    `jax.jit`, `jax.checkpoint` or `lax.cond` must not call `by_platform`: JAX may have cached their
    trace for another platform.

    Args:
      platform: Name as in `jax.Device.platform`, or `ANY`. "gpu" may be either of `GPU`, so it
        decides nothing.
    """
    token = _platform.set(None if platform == "gpu" else platform)
    try:
        yield
    finally:
        _platform.reset(token)


@contextmanager
def reference(*operations: str) -> Iterator[None]:
    """Programs traced inside compute these operations by their references.

    Args:
      *operations: Names out of `OPERATIONS`.

    Raises:
      ValueError: If a name is unknown.
    """
    if unknown := set(operations) - set(OPERATIONS):
        raise ValueError(f"unknown operations {sorted(unknown)}; expected some of {OPERATIONS}")
    token = _references.set(_references.get() | set(operations))
    try:
        yield
    finally:
        _references.reset(token)


def is_reference(operation: str) -> bool:
    """Whether an operation that is traced now is computed by its reference."""
    return operation in _references.get()


def may_be(platform: str) -> bool:
    """Whether what is traced may be compiled for a platform."""
    return _platform.get() in (None, platform)


def by_platform(*arrays: Any, default: Callable, **functions: Callable) -> Any:
    """`functions[platform](*arrays)`, or `default(*arrays)` on a platform without one.

    The platform is that of `compiled_for`, or else the one that the program is lowered for.
    """
    platform = _platform.get()
    if platform is None:
        return lax.platform_dependent(*arrays, default=default, **functions)
    return functions.get(platform, default)(*arrays)


def barrier(arrays: Any, *platforms: str) -> Any:
    """The arrays, unchanged, passed through an optimization barrier on these platforms.

    The compiler shares nothing across it: what is cheaper to compute twice than to store is
    computed twice. The reference has no barrier.
    """
    if is_reference("barrier"):
        return arrays
    leaves, structure = jax.tree.flatten(arrays)
    leaves = by_platform(*leaves, default=_identity, **dict.fromkeys(platforms, _barrier))
    return jax.tree.unflatten(structure, leaves)


# Functions of the module, not closures: JAX traces each once for arrays of a shape.
def _identity(*leaves: jax.Array) -> tuple[jax.Array, ...]:
    return leaves


def _barrier(*leaves: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(lax.optimization_barrier(leaves))
