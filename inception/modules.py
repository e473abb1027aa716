"""The figures of the paper, one class each, and the stems.

Every module takes `conv`, a `layers.ConvBN` with the network-wide choices already made, and a pool,
and maps [batch, height, width, channels] to the concatenation of its branches. A branch is written
as the figure draws it, from the input up. Channel counts are the released code's
(slim/nets/inception_v3.py); submodules carry torchvision's names, stages carry slim's.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from inception.batch_norm import at_least_float32
from inception.layers import ConvBN, siblings
from inception.pools import Pool, avg_pool_same, max_pool

MakeConv = Callable[..., ConvBN]
PoolFunction = Callable[[jax.Array], jax.Array]
# Of a reduction: (conv, the convolution that ends a branch, x) -> the branches' outputs.
Branches = Callable[[MakeConv, MakeConv, jax.Array], tuple[jax.Array, ...]]


def concatenate(*branches: jax.Array) -> jax.Array:
    """The filter concatenation on top of every figure."""
    return jnp.concatenate(branches, axis=-1)


class Figure5(nn.Module):
    """The 35x35 module: figure 4 with a 5x5 replaced by two 3x3 (section 3.1).

    Attributes:
      conv: makes a convolution.
      projection: features of the 1x1 convolution behind the pool.
      pool: that keeps the grid.
      short: filter size of the second branch: 3 in the figure, 5 in the released code.
      relu_between: whether a ReLU stands between the two 3x3 (section 3.1, figure 2).
    """

    conv: MakeConv
    projection: int
    pool: PoolFunction = avg_pool_same
    short: int = 3
    relu_between: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 35, 35, channels] to [batch, 35, 35, 224 + projection]."""
        conv, size = self.conv, self.short
        first, second = {
            3: ("branch3x3_1", "branch3x3_2"),
            5: ("branch5x5_1", "branch5x5_2"),
        }[size]
        branch1x1, short, double, pool = siblings(
            x,
            conv(64, name="branch1x1"),
            conv(48, name=first),
            conv(64, name="branch3x3dbl_1"),
            conv(self.projection, pool=self.pool, name="branch_pool"),
        )
        short = conv(64, (size, size), name=second)(short)
        double = conv(96, (3, 3), relu=self.relu_between, name="branch3x3dbl_2")(double)
        double = conv(96, (3, 3), name="branch3x3dbl_3")(double)
        return concatenate(branch1x1, short, double, pool)


class Figure6(nn.Module):
    """The 17x17 module: n x n replaced by 1xn then nx1, with n = 7 (section 3.2).

    Attributes:
      conv: makes a convolution.
      features: of the convolutions inside the branches.
      pool: that keeps the grid.
      factorization: what stands for a 7x7: "asymmetric" (1x7 and 7x1), "full" (the 7x7 itself) or
        "3x3" (a pair of 3x3).
    """

    conv: MakeConv
    features: int
    pool: PoolFunction = avg_pool_same
    factorization: str = "asymmetric"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 17, 17, channels] to [batch, 17, 17, 768]."""
        conv, features = self.conv, self.features
        branch1x1, once, twice, pool = siblings(
            x,
            conv(192, name="branch1x1"),
            conv(features, name="branch7x7_1"),
            conv(features, name="branch7x7dbl_1"),
            conv(192, pool=self.pool, name="branch_pool"),
        )
        if self.factorization == "full":
            once, twice = self._full(once, twice)
        else:
            pair = {"asymmetric": ((1, 7), (7, 1)), "3x3": ((3, 3), (3, 3))}[self.factorization]
            once, twice = self._factorized(once, twice, *pair)
        return concatenate(branch1x1, once, twice, pool)

    def _factorized(
        self,
        once: jax.Array,
        twice: jax.Array,
        first: tuple[int, int],
        second: tuple[int, int],
    ) -> tuple[jax.Array, jax.Array]:
        """One 7x7 and two, each as two filters; the released code begins the two with 7x1."""
        conv, features = self.conv, self.features
        once = conv(features, first, name="branch7x7_2")(once)
        once = conv(192, second, name="branch7x7_3")(once)
        twice = conv(features, second, name="branch7x7dbl_2")(twice)
        twice = conv(features, first, name="branch7x7dbl_3")(twice)
        twice = conv(features, second, name="branch7x7dbl_4")(twice)
        twice = conv(192, first, name="branch7x7dbl_5")(twice)
        return once, twice

    def _full(self, once: jax.Array, twice: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One 7x7 and two as they are."""
        conv, features = self.conv, self.features
        once = conv(192, (7, 7), name="branch7x7_2")(once)
        twice = conv(features, (7, 7), name="branch7x7dbl_2")(twice)
        twice = conv(192, (7, 7), name="branch7x7dbl_3")(twice)
        return once, twice


class Figure7(nn.Module):
    """The 8x8 module: the last 3x3 expands into a parallel 1x3 and 3x1 (section 3.2).

    Attributes:
      conv: makes a convolution.
      pool: that keeps the grid.
      expanded: False keeps that 3x3 whole, with the same 768 outputs: figure 5's module on 8x8.
    """

    conv: MakeConv
    pool: PoolFunction = avg_pool_same
    expanded: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 8, 8, channels] to [batch, 8, 8, 2048]."""
        conv = self.conv
        branch1x1, short, double, pool = siblings(
            x,
            conv(320, name="branch1x1"),
            conv(384, name="branch3x3_1"),
            conv(448, name="branch3x3dbl_1"),
            conv(192, pool=self.pool, name="branch_pool"),
        )
        double = conv(384, (3, 3), name="branch3x3dbl_2")(double)
        if self.expanded:
            short = concatenate(
                conv(384, (1, 3), name="branch3x3_2a")(short),
                conv(384, (3, 1), name="branch3x3_2b")(short),
            )
            double = concatenate(
                conv(384, (1, 3), name="branch3x3dbl_3a")(double),
                conv(384, (3, 1), name="branch3x3dbl_3b")(double),
            )
        else:
            short = conv(768, (3, 3), name="branch3x3_2")(short)
            double = conv(768, (3, 3), name="branch3x3dbl_3")(double)
        return concatenate(branch1x1, short, double, pool)


class Figure8(nn.Module):
    """The auxiliary classifier on top of the last 17x17 layer (section 4).

    The 5x5 convolution is the figure's fully connected layer. On grids that are too small its
    pool and its filter shrink to what is there; on larger ones its outputs are averaged.

    Attributes:
      conv: makes a convolution.
      num_classes: of the logits.
      kind: "bn" normalizes the fully connected layer too (BN-auxiliary), "plain" does not,
        "dropout" is plain with dropout before the logits (the other regularizer of section 4; the
        rate 0.7 is GoogLeNet's).
      train: whether dropout is on.
    """

    conv: MakeConv
    num_classes: int
    kind: str = "bn"
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 17, 17, 768] to float32 logits [batch, num_classes]."""
        window = _at_most(5, x)
        x = nn.avg_pool(x, window, strides=(3, 3))  # 5x5x768
        x = self.conv(128, name="conv0")(x)  # 5x5x128
        normalization = {} if self.kind == "bn" else {"batch_norm": None}
        fully_connected = partial(self.conv, padding="VALID", stddev=0.01, **normalization)
        x = fully_connected(768, _at_most(5, x), name="conv1")(x)  # 1x1x768
        x = at_least_float32(x).mean(axis=(1, 2))
        if self.kind == "dropout":
            x = nn.Dropout(0.7, deterministic=not self.train)(x)
        init = nn.initializers.truncated_normal(0.001)
        return nn.Dense(self.num_classes, kernel_init=init, name="fc")(x)


def _at_most(size: int, x: jax.Array) -> tuple[int, int]:
    """A window of size x size, or of x's whole height or width where that is smaller."""
    return min(size, x.shape[1]), min(size, x.shape[2])


class Figure9(nn.Module):
    """The two reductions that the paper argues against (section 5, figure 9).

    The branches of `Figure10` with stride 1 and a 1x1 convolution of the input in place of the
    pool, and a pool before (cheap, but a representational bottleneck) or behind them (costly).

    Attributes:
      conv: makes a convolution.
      branches: as in `Figure10`.
      pool: that halves the grid.
      pool_first: pool, then convolve; otherwise convolve, then pool.
    """

    conv: MakeConv
    branches: Branches
    pool: PoolFunction = max_pool
    pool_first: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, d, d, k] to [batch, d / 2, d / 2, k + features of the branches]."""
        x = self.pool(x) if self.pool_first else x
        same = self.conv(x.shape[-1], width_multiplier=1.0, name="branch_pool")(x)
        x = concatenate(*self.branches(self.conv, self.conv, x), same)
        return x if self.pool_first else self.pool(x)


class Figure10(nn.Module):
    """The grid reduction: stride-2 convolutions and a pool side by side (section 5).

    Attributes:
      conv: makes a convolution.
      branches: `branches_6a` or `branches_7a`; the convolution that ends a branch has stride 2 and
        no padding.
      pool: that halves the grid.
    """

    conv: MakeConv
    branches: Branches
    pool: PoolFunction = max_pool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, d, d, k] to [batch, d / 2, d / 2, k + features of the branches]."""
        end = partial(self.conv, stride=2, padding="VALID")
        return concatenate(*self.branches(self.conv, end, x), self.pool(x))


def branches_6a(conv: MakeConv, end: MakeConv, x: jax.Array) -> tuple[jax.Array, ...]:
    """The convolutions between the 35x35 and the 17x17 stage, 384 + 96 features."""
    short = end(384, (3, 3), name="branch3x3")(x)
    double = conv(64, name="branch3x3dbl_1")(x)
    double = conv(96, (3, 3), name="branch3x3dbl_2")(double)
    double = end(96, (3, 3), name="branch3x3dbl_3")(double)
    return short, double


def branches_7a(conv: MakeConv, end: MakeConv, x: jax.Array) -> tuple[jax.Array, ...]:
    """The convolutions between the 17x17 and the 8x8 stage, 320 + 192 features."""
    short, factorized = siblings(x, conv(192, name="branch3x3_1"), conv(192, name="branch7x7x3_1"))
    short = end(320, (3, 3), name="branch3x3_2")(short)
    factorized = conv(192, (1, 7), name="branch7x7x3_2")(factorized)
    factorized = conv(192, (7, 1), name="branch7x7x3_3")(factorized)
    factorized = end(192, (3, 3), name="branch7x7x3_4")(factorized)
    return short, factorized


def stem_factorized(
    conv: MakeConv, max_pool: PoolFunction, stride: int = 2, pool: bool = True
) -> list[nn.Module]:
    """The released stem, the 7x7 as a sequence of 3x3; `stride` and `pool` vary in table 2."""
    valid = partial(conv, padding="VALID")
    return [
        valid(32, (3, 3), stride, name="Conv2d_1a_3x3"),  # 149x149x32
        valid(32, (3, 3), name="Conv2d_2a_3x3"),  # 147x147x32
        conv(64, (3, 3), name="Conv2d_2b_3x3"),  # 147x147x64
        *([Pool(max_pool, name="MaxPool_3a_3x3")] if pool else []),  # 73x73x64
        *_stem_end(conv, max_pool),
    ]


def stem_7x7(conv: MakeConv, max_pool: PoolFunction) -> list[nn.Module]:
    """The released stem with one 7x7 for its first three convolutions (table 3, Inception-v2)."""
    return [
        conv(64, (7, 7), 2, "VALID", name="Conv2d_1a_7x7"),  # 147x147x64
        Pool(max_pool, name="MaxPool_3a_3x3"),  # 73x73x64
        *_stem_end(conv, max_pool),
    ]


def _stem_end(conv: MakeConv, max_pool: PoolFunction) -> list[nn.Module]:
    return [
        conv(80, name="Conv2d_3b_1x1"),  # 73x73x80
        conv(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3"),  # 71x71x192
        Pool(max_pool, name="MaxPool_5a_3x3"),  # 35x35x192
    ]


def stem_table1(conv: MakeConv, max_pool: PoolFunction) -> list[nn.Module]:
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
