"""The names of ImageNet's 1000 classes in the order of their WordNet ids, which all sources use.

imagenet_labels.txt has one id and one name per line: the ids from TFDS's imagenet2012 (Apache 2.0),
the names, all different, from torchvision (BSD 3-clause).
"""

import functools
from pathlib import Path


def imagenet_labels() -> tuple[str, ...]:
    """The names of the 1000 classes."""
    return tuple(imagenet_names().values())


@functools.cache
def imagenet_names() -> dict[str, str]:
    """The names of the 1000 classes by their WordNet ids, such as "n01440764"."""
    lines = Path(__file__).with_name("imagenet_labels.txt").read_text().splitlines()
    return dict(line.split(maxsplit=1) for line in lines)
