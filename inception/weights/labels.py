"""The names of ImageNet's 1000 classes in the order of their WordNet ids, as all sources have them.

All but FID's network, whose 1008 outputs are in an order of their own that is not in this package.

imagenet_labels.txt holds an id and a name a line: the ids from TFDS's imagenet2012 (Apache 2.0),
the names, each used once, from torchvision (BSD 3-clause).
"""

import functools
from pathlib import Path


def imagenet_labels() -> tuple[str, ...]:
    """The names of the 1000 classes."""
    return tuple(name for _, name in _lines())


def imagenet_ids() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes, "n01440764"."""
    return tuple(wordnet for wordnet, _ in _lines())


@functools.cache
def _lines() -> tuple[tuple[str, str], ...]:
    lines = Path(__file__).with_name("imagenet_labels.txt").read_text().splitlines()
    pairs = (line.split(maxsplit=1) for line in lines)
    return tuple((wordnet, name) for wordnet, name in pairs)
