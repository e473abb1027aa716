"""The tables of docs/scaling.md's cost model; `INCEPTION_SCALING=1 pytest -n0 THIS` writes them."""

import math
import os
import re
from functools import cache
from pathlib import Path

import jax
import pytest

import inception
from inception.distributed import sharding
from inception.training.state import build

DOC = Path("docs/scaling.md")
DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024)
IMAGES = 1_281_167  # ImageNet's, of an epoch
# Assumptions, all stated in the document.
SPEED = 3000  # images/s of a device that computes
NVLINK = 450e9  # bytes/s that a GPU sends to the others of its host, of 8
NETWORKS = {"400 Gb/s a GPU": 400e9 / 8, "100 Gb/s a host": 100e9 / 8 / 8}  # bytes/s of a GPU
HOP, NETWORK_HOP = 1e-6, 5e-6  # seconds of a message within a host, and between two
SPREAD = 0.02  # of a device's step time, as a part of it


@cache
def sizes() -> dict[str, int]:
    """Numbers that a step of v3 sums over devices, by kind."""
    recipe = build(inception.load_config("configs/v3.py"), 1000, 800.0)
    state = recipe.abstract_state(sharding.make_mesh(local=True))
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    return {"gradients": count(state.params), "statistics": count(state.batch_stats)}


def all_reduce(devices: int, message: float, network: float) -> float:
    """Seconds: within each host, then its eighths between hosts, then within each host again."""
    hosts = devices // 8
    inside = 2 * 7 / 8 * message / NVLINK + 14 * HOP
    between = 2 * (hosts - 1) / hosts * message / 8 / network
    return inside + between + 2 * math.log2(hosts) * NETWORK_HOP


def table(images: dict[int, int]) -> list[str]:
    """A row for each number of devices, which have so many images each."""
    message = 4 * sum(sizes().values())
    lines = [
        "| GPUs | images a step | a GPU's images | step alone | "
        + " | ".join(f"all-reduce, {name} | efficiency" for name in NETWORKS)
        + " | the slowest of all |",
        "|---" * (5 + 2 * len(NETWORKS)) + "|",
    ]
    for devices, each in images.items():
        step = each / SPEED
        cells = [f"{devices:,}", f"{devices * each:,}", f"{each}", f"{1000 * step:.1f} ms"]
        for network in NETWORKS.values():
            time = all_reduce(devices, message, network)
            hidden = min(step / max(step, step / 3 + time), 1)  # behind the backward pass
            cells += [f"{1000 * time:.1f} ms", f"{step / (step + time):.0%} to {hidden:.0%}"]
        cells.append(f"+{SPREAD * math.sqrt(2 * math.log(devices)):.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


TABLES = {
    "weak": lambda: table(dict.fromkeys(DEVICES, 32)),
    "large": lambda: table(dict.fromkeys(DEVICES, 256)),
    "strong": lambda: table({n: 1536 // n for n in (8, 16, 24, 48)}),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_what_the_model_gives(name):
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    text = DOC.read_text()
    lines = "\n".join(TABLES[name]()) + "\n"
    written = pattern.sub(rf"\g<1>{lines}\g<2>", text)
    if os.environ.get("INCEPTION_SCALING"):
        DOC.write_text(written)
    assert DOC.read_text() == written
    assert pattern.search(text)


def test_the_bytes_in_the_text_are_those_of_the_network():
    message = 4 * sum(sizes().values())
    text = DOC.read_text()
    for number in (*sizes().values(), message):
        assert f"{number:,}" in text
    assert sizes()["gradients"] == 27_143_152
