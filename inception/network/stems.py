"""The first layers of the network, from the image to the 35x35 grid; each layer is a stage."""

from functools import partial

import flax.linen as nn

from inception.network.modules import MakeConv
from inception.network.pools import Pool
from inception.ops.max_pool import max_pool


def factorized(conv: MakeConv, stride: int = 2, pool: bool = True) -> list[nn.Module]:
    """The released stem, the 7x7 as a sequence of 3x3; `stride` and `pool` vary in table 2."""
    valid = partial(conv, padding="VALID")
    return [
        valid(32, (3, 3), stride, name="Conv2d_1a_3x3"),  # 149x149x32
        valid(32, (3, 3), name="Conv2d_2a_3x3"),  # 147x147x32
        conv(64, (3, 3), name="Conv2d_2b_3x3"),  # 147x147x64
        *([Pool(max_pool, name="MaxPool_3a_3x3")] if pool else []),  # 73x73x64
        *_end(conv),
    ]


def conv_7x7(conv: MakeConv) -> list[nn.Module]:
    """The released stem with one 7x7 for its first three convolutions (table 3, Inception-v2)."""
    return [
        conv(64, (7, 7), 2, "VALID", name="Conv2d_1a_7x7"),  # 147x147x64
        Pool(max_pool, name="MaxPool_3a_3x3"),  # 73x73x64
        *_end(conv),
    ]


def _end(conv: MakeConv) -> list[nn.Module]:
    return [
        conv(80, name="Conv2d_3b_1x1"),  # 73x73x80
        conv(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3"),  # 71x71x192
        Pool(max_pool, name="MaxPool_5a_3x3"),  # 35x35x192
    ]


def table1(conv: MakeConv) -> list[nn.Module]:
    """Table 1's first rows read literally; the last must be padded to give its 35x35x288."""
    valid = partial(conv, padding="VALID")
    return [
        valid(32, (3, 3), 2, name="Conv2d_1a_3x3"),  # 149x149x32
        valid(32, (3, 3), name="Conv2d_2a_3x3"),  # 147x147x32
        conv(64, (3, 3), name="Conv2d_2b_3x3"),  # 147x147x64
        Pool(max_pool, name="MaxPool_3a_3x3"),  # 73x73x64
        valid(80, (3, 3), name="Conv2d_3b_3x3"),  # 71x71x80
        valid(192, (3, 3), 2, name="Conv2d_4a_3x3"),  # 35x35x192
        conv(288, (3, 3), name="Conv2d_4b_3x3"),  # 35x35x288
    ]
