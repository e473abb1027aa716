"""The figures of the paper, one class each.

A figure lists its branches, each from the input up as the figure draws it, and `concat` joins them:
[batch, height, width, channels] becomes the concatenation of their outputs. Every figure is given
`conv`, a `layers.ConvBN` with the network-wide choices already made, and `concat`. Channel counts
are the released code's (slim/nets/inception_v3.py); submodules have torchvision's names, stages
have slim's.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from inception.network import layers
from inception.network.layers import Branch, ConvBN, Layer
from inception.network.pools import AvgPool, avg_pool
from inception.ops.max_pool import max_pool
from inception.ops.precision import at_least_float32

MakeConv = Callable[..., ConvBN]
Concat = Callable[..., jax.Array]  # (x, *branches) -> the branches' outputs side by side
# The branches of a reduction, from (conv, the convolution that ends a branch).
MakeBranches = Callable[[MakeConv, MakeConv], list[Branch]]


class Figure5(nn.Module):
    """The 35x35 module: figure 4 with a 5x5 replaced by two 3x3 (section 3.1).

    Attributes:
      conv: Makes a convolution.
      projection: Features of the 1x1 convolution after the pool.
      pool: Pool that keeps the grid.
      concat: Joins the branches.
      short: Filter size of the second branch: 3 in the figure, 5 in the released code.
      relu_between: Whether a ReLU follows the first of the two 3x3 (section 3.1, figure 2).
    """

    conv: MakeConv
    projection: int
    pool: Layer = AvgPool()
    concat: Concat = layers.concat
    short: int = 3
    relu_between: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 35, 35, channels] to [batch, 35, 35, 224 + projection]."""
        conv, n = self.conv, self.short
        return self.concat(
            x,
            [conv(64, name="branch1x1")],
            [conv(48, name=f"branch{n}x{n}_1"), conv(64, (n, n), name=f"branch{n}x{n}_2")],
            [
                conv(64, name="branch3x3dbl_1"),
                conv(96, (3, 3), relu=self.relu_between, name="branch3x3dbl_2"),
                conv(96, (3, 3), name="branch3x3dbl_3"),
            ],
            [self.pool, conv(self.projection, name="branch_pool")],
        )


class Figure6(nn.Module):
    """The 17x17 module: n x n replaced by 1xn then nx1, with n = 7 (section 3.2).

    Attributes:
      conv: Makes a convolution.
      features: Features of the convolutions inside the branches.
      pool: Pool that keeps the grid.
      concat: Joins the branches.
      factorization: What replaces a 7x7: "asymmetric" (1x7 and 7x1), "full" (the 7x7 itself) or
        "3x3" (a pair of 3x3).
    """

    conv: MakeConv
    features: int
    pool: Layer = AvgPool()
    concat: Concat = layers.concat
    factorization: str = "asymmetric"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 17, 17, channels] to [batch, 17, 17, 768]."""
        conv, c = self.conv, self.features
        once, twice = self._full() if self.factorization == "full" else self._factorized()
        return self.concat(
            x,
            [conv(192, name="branch1x1")],
            [conv(c, name="branch7x7_1"), *once],
            [conv(c, name="branch7x7dbl_1"), *twice],
            [self.pool, conv(192, name="branch_pool")],
        )

    def _factorized(self) -> tuple[Branch, Branch]:
        """One 7x7 and two, each as two filters; the released code begins the two with 7x1."""
        conv, c = self.conv, self.features
        wide, tall = {"asymmetric": ((1, 7), (7, 1)), "3x3": ((3, 3), (3, 3))}[self.factorization]
        once = [conv(c, wide, name="branch7x7_2"), conv(192, tall, name="branch7x7_3")]
        twice = [
            conv(c, tall, name="branch7x7dbl_2"),
            conv(c, wide, name="branch7x7dbl_3"),
            conv(c, tall, name="branch7x7dbl_4"),
            conv(192, wide, name="branch7x7dbl_5"),
        ]
        return once, twice

    def _full(self) -> tuple[Branch, Branch]:
        """One 7x7 and two as they are."""
        conv, c = self.conv, self.features
        once = [conv(192, (7, 7), name="branch7x7_2")]
        twice = [
            conv(c, (7, 7), name="branch7x7dbl_2"),
            conv(192, (7, 7), name="branch7x7dbl_3"),
        ]
        return once, twice


class Figure7(nn.Module):
    """The 8x8 module: the last 3x3 expands into a parallel 1x3 and 3x1 (section 3.2).

    Attributes:
      conv: Makes a convolution.
      pool: Pool that keeps the grid.
      concat: Joins the branches.
      expanded: False keeps that 3x3 whole, with the same 768 outputs: figure 5's module on 8x8.
    """

    conv: MakeConv
    pool: Layer = AvgPool()
    concat: Concat = layers.concat
    expanded: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 8, 8, channels] to [batch, 8, 8, 2048]."""
        conv = self.conv
        last = self._expanded if self.expanded else self._whole
        return self.concat(
            x,
            [conv(320, name="branch1x1")],
            [conv(384, name="branch3x3_1"), last("branch3x3_2")],
            [
                conv(448, name="branch3x3dbl_1"),
                conv(384, (3, 3), name="branch3x3dbl_2"),
                last("branch3x3dbl_3"),
            ],
            [self.pool, conv(192, name="branch_pool")],
        )

    def _expanded(self, name: str) -> Layer:
        """The 1x3 and the 3x1 side by side."""
        wide = self.conv(384, (1, 3), name=f"{name}a")
        tall = self.conv(384, (3, 1), name=f"{name}b")
        return lambda x: self.concat(x, [wide], [tall])

    def _whole(self, name: str) -> Layer:
        return self.conv(768, (3, 3), name=name)


class Figure8(nn.Module):
    """The auxiliary classifier on top of the last 17x17 layer (section 4).

    The 5x5 convolution is the figure's fully connected layer. On grids that are too small its
    pool and its filter shrink to the grid; on larger ones its outputs are averaged.

    Attributes:
      conv: Makes a convolution.
      num_classes: Number of logits.
      kind: "bn" normalizes the fully connected layer too (BN-auxiliary), "plain" does not,
        "dropout" is plain with dropout before the logits (the other regularizer of section 4; the
        rate 0.7 is GoogLeNet's).
      train: Whether dropout is on.
    """

    conv: MakeConv
    num_classes: int
    kind: str = "bn"
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 17, 17, 768] to float32 logits [batch, num_classes]."""
        x = avg_pool(x, _at_most(5, x), (3, 3))  # 5x5x768
        x = self.conv(128, name="conv0")(x)  # 5x5x128
        norm = {} if self.kind == "bn" else {"norm": None}
        fully_connected = partial(self.conv, padding="VALID", stddev=0.01, **norm)
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
    pool, and a pool before (cheap, but a representational bottleneck) or after them (costly).

    Attributes:
      conv: Makes a convolution.
      branches: The branches, as in `Figure10`.
      pool: Pool that halves the grid.
      concat: Joins the branches.
      pool_first: Pool, then convolve; otherwise convolve, then pool.
    """

    conv: MakeConv
    branches: MakeBranches
    pool: Layer = max_pool
    concat: Concat = layers.concat
    pool_first: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, d, d, k] to [batch, d / 2, d / 2, k + features of the branches]."""
        conv = self.conv
        x = self.pool(x) if self.pool_first else x
        same = [conv(x.shape[-1], width_multiplier=1.0, name="branch_pool")]
        x = self.concat(x, *self.branches(conv, conv), same)
        return x if self.pool_first else self.pool(x)


class Figure10(nn.Module):
    """The grid reduction: stride-2 convolutions and a pool side by side (section 5).

    Attributes:
      conv: Makes a convolution.
      branches: `branches_6a` or `branches_7a`; the convolution that ends a branch has stride 2 and
        no padding.
      pool: Pool that halves the grid.
      concat: Joins the branches.
    """

    conv: MakeConv
    branches: MakeBranches
    pool: Layer = max_pool
    concat: Concat = layers.concat

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, d, d, k] to [batch, d / 2, d / 2, k + features of the branches]."""
        end = partial(self.conv, stride=2, padding="VALID")
        return self.concat(x, *self.branches(self.conv, end), [self.pool])


def branches_6a(conv: MakeConv, end: MakeConv) -> list[Branch]:
    """The convolutions between the 35x35 and the 17x17 stage, 384 + 96 features."""
    return [
        [end(384, (3, 3), name="branch3x3")],
        [
            conv(64, name="branch3x3dbl_1"),
            conv(96, (3, 3), name="branch3x3dbl_2"),
            end(96, (3, 3), name="branch3x3dbl_3"),
        ],
    ]


def branches_7a(conv: MakeConv, end: MakeConv) -> list[Branch]:
    """The convolutions between the 17x17 and the 8x8 stage, 320 + 192 features."""
    return [
        [conv(192, name="branch3x3_1"), end(320, (3, 3), name="branch3x3_2")],
        [
            conv(192, name="branch7x7x3_1"),
            conv(192, (1, 7), name="branch7x7x3_2"),
            conv(192, (7, 1), name="branch7x7x3_3"),
            end(192, (3, 3), name="branch7x7x3_4"),
        ],
    ]
