"""The costs of the files of configs/, counted once in a process."""

import functools

import inception
from inception.cost import counting


@functools.cache
def cost(name: str, *overrides: str) -> counting.NetworkCost:
    return counting.count_network(inception.load_config(f"configs/{name}.py", overrides))
