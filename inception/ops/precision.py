"""The precision of statistics and heads, whatever the type of the activations."""

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """Casts to float32, and leaves float64 alone: tests compare networks without rounding in it."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
