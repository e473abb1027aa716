"""Weights and statistics as a few vectors, which a GPU updates in a few kernels.

Of each stage the kernels are one vector, because they alone are decayed, and all else is another:
{"Mixed_5b": {"kernel": [N], "rest": [M]}}. What works on a tree by its stages and by the name
"kernel" works on that, too.
"""

from typing import Any

import jax
import jax.numpy as jnp

from inception.training.state import TrainState


def pack_state(state: TrainState) -> TrainState:
    """The state with each tree of weights or statistics packed, also the optimizer's."""
    return jax.tree.map(lambda x: pack(x) if _is_tree(x) else x, state, is_leaf=_is_tree)


def unpack_state(state: TrainState, like: TrainState) -> TrainState:
    """What `pack_state` packed; `like` has the shapes."""
    return jax.tree.map(
        lambda x, shapes: unpack(x, shapes) if _is_tree(x) else x, state, like, is_leaf=_is_tree
    )


def pack(tree: dict) -> dict[str, dict[str, jax.Array]]:
    """The leaves of each stage as vectors, in their order."""

    def stage(leaves: dict) -> dict[str, jax.Array]:
        vectors: dict[str, list[jax.Array]] = {}
        for path, leaf in jax.tree.leaves_with_path(leaves):
            vectors.setdefault(_name(path), []).append(_flat(leaf))
        return {name: jnp.concatenate(parts) for name, parts in vectors.items()}

    return {name: stage(leaves) for name, leaves in tree.items()}


def unpack(packed: dict[str, dict[str, jax.Array]], like: dict) -> dict:
    """The tree that `pack` packed; `like` has the shapes."""

    def stage(vectors: dict[str, jax.Array], like: dict) -> dict:
        position = dict.fromkeys(vectors, 0)

        def leaf(path: tuple, shape: jax.ShapeDtypeStruct) -> jax.Array:
            name = _name(path)
            start = position[name]
            position[name] = end = start + shape.size
            return _shaped(vectors[name][start:end], shape.shape)

        return jax.tree.map_with_path(leaf, like)

    return {name: stage(packed[name], leaves) for name, leaves in like.items()}


def _is_tree(x: Any) -> bool:
    return isinstance(x, dict)


def _name(path: tuple) -> str:
    return "kernel" if path[-1].key == "kernel" else "rest"


# A convolution's kernel lies in a vector as cuDNN wants it, output channel by output channel, so
# that neither it nor its gradient is transposed in each step.
def _flat(leaf: jax.Array) -> jax.Array:
    return (leaf.transpose(3, 0, 1, 2) if leaf.ndim == 4 else leaf).reshape(-1)


def _shaped(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if len(shape) < 4:
        return vector.reshape(shape)
    return vector.reshape(shape[3], *shape[:3]).transpose(1, 2, 3, 0)
