"""Weights and statistics as a few vectors, which a GPU updates in a few kernel launches.

The kernels of each stage are one vector, because weight decay applies to them alone, and its other
leaves are another: {"Mixed_5b": {"kernel": [N], "rest": [M]}}. A function that looks only at a
tree's stages and at the name "kernel" accepts the packed tree too.
"""

from typing import Any

import jax
import jax.numpy as jnp

from inception.training.state import TrainState


def pack_state(state: TrainState) -> TrainState:
    """The state with each tree of weights or statistics packed, also the optimizer's."""
    return jax.tree.map(lambda x: pack(x) if _is_tree(x) else x, state, is_leaf=_is_tree)


def unpack_state(state: TrainState, abstract_state: TrainState) -> TrainState:
    """The inverse of `pack_state`; `abstract_state` has the shapes."""
    return jax.tree.map(
        lambda x, abstract: unpack(x, abstract) if _is_tree(x) else x,
        state,
        abstract_state,
        is_leaf=_is_tree,
    )


def pack(tree: dict) -> dict[str, dict[str, jax.Array]]:
    """The leaves of each stage as vectors, in their order."""

    def stage(leaves: dict) -> dict[str, jax.Array]:
        vectors: dict[str, list[jax.Array]] = {}
        for path, leaf in jax.tree.leaves_with_path(leaves):
            vectors.setdefault(_name(path), []).append(_flat(leaf))
        return {name: jnp.concatenate(parts) for name, parts in vectors.items()}

    return {name: stage(leaves) for name, leaves in tree.items()}


def unpack(packed: dict[str, dict[str, jax.Array]], abstract: dict) -> dict:
    """The inverse of `pack`; `abstract` is a tree of shapes."""

    def stage(vectors: dict[str, jax.Array], abstract: dict) -> dict:
        position = dict.fromkeys(vectors, 0)

        def leaf(path: tuple, shape: jax.ShapeDtypeStruct) -> jax.Array:
            name = _name(path)
            start = position[name]
            position[name] = end = start + shape.size
            return _shaped(vectors[name][start:end], shape.shape)

        return jax.tree.map_with_path(leaf, abstract)

    return {name: stage(packed[name], leaves) for name, leaves in abstract.items()}


def _is_tree(x: Any) -> bool:
    return isinstance(x, dict)


def _name(path: tuple) -> str:
    return "kernel" if path[-1].key == "kernel" else "rest"


# A convolution kernel is stored in cuDNN's layout, with the output channels first, so that neither
# the kernel nor its gradient is transposed in every step.
def _flat(leaf: jax.Array) -> jax.Array:
    return (leaf.transpose(3, 0, 1, 2) if leaf.ndim == 4 else leaf).reshape(-1)


def _shaped(vector: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if len(shape) < 4:
        return vector.reshape(shape)
    return vector.reshape(shape[3], *shape[:3]).transpose(1, 2, 3, 0)
