"""The stages of a network and their weights: the table at the start of a run."""

from typing import Any

import jax
from tabulate import tabulate

from inception.training.state import Recipe


def table(params: dict[str, Any], recipe: Recipe) -> str:
    """The number of parameters of every stage and head, in the network's order.

    Args:
      params: The network's weights, or their shapes.
      recipe: The network, and which of its stages are trained.
    """
    sizes = {
        block: sum(leaf.size for leaf in jax.tree.leaves(params[block]))
        for block in recipe.blocks(params)
    }
    total = sum(sizes.values())
    rows = [
        (block, f"{size:,}", f"{size / total:.1%}", "no" if block in recipe.frozen else "yes")
        for block, size in sizes.items()
    ]
    align = ("left", "right", "right", "left")
    headers = ("stage", "parameters", "share", "trained")
    return tabulate(rows, headers, "simple", colalign=align, disable_numparse=True)
