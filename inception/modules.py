"""The figures of the paper, one class each, and the stems.

Every module takes `conv`, a `layers.ConvBN` with the network-wide choices already made, and maps
[batch, height, width, channels] to the concatenation of its branches. A branch is written as the
figure draws it, from the input up. Channel counts are the released code's
(slim/nets/inception_v3.py); submodules carry torchvision's names, stages carry slim's.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from inception.layers import MaxPool, avg_pool

Conv = Callable[..., nn.Module]
Layer = tuple[int, tuple[int, int]]  # features, (height, width) of the filter


def branch(conv: Conv, x: jax.Array, name: str, *layers: Layer, last: Conv | None = None):
    """Applies convolutions one after the other, named name_1, name_2, ... (or `name` if alone).

    `last`, if given, makes the last convolution in place of `conv`: that is where a reduction
    has its stride.
    """
    for number, (features, kernel) in enumerate(layers, start=1):
        make = last if last and number == len(layers) else conv
        suffix = f"_{number}" if len(layers) > 1 else ""
        x = make(features, kernel, name=name + suffix)(x)
    return x


def concatenate(*branches: jax.Array) -> jax.Array:
    """The filter concatenation on top of every figure."""
    return jnp.concatenate(branches, axis=-1)


class Figure5(nn.Module):
    """The 35x35 module: figure 4 with a 5x5 replaced by two 3x3 (section 3.1).

    Attributes:
      conv: makes a convolution.
      pool: features of the projection behind the average pool.
      short: filter size of the second branch: 3 in the figure, 5 in the released code.
      relu_between: whether a ReLU stands between the two 3x3 (section 3.1, figure 2).
    """

    conv: Conv
    pool: int
    short: int = 5
    relu_between: bool = True

    @property
    def variant(self) -> str:
        """How it differs from the figure, for tables and pictures."""
        return "" if self.short == 3 else " with a 5x5"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 35, 35, channels] to [batch, 35, 35, 224 + pool]."""
        short = f"branch{self.short}x{self.short}"
        double = branch(self.conv, x, "branch3x3dbl_1", (64, (1, 1)))
        double = self.conv(96, (3, 3), relu=self.relu_between, name="branch3x3dbl_2")(double)
        double = self.conv(96, (3, 3), name="branch3x3dbl_3")(double)
        return concatenate(
            branch(self.conv, x, "branch1x1", (64, (1, 1))),
            branch(self.conv, x, short, (48, (1, 1)), (64, (self.short, self.short))),
            double,
            branch(self.conv, avg_pool(x), "branch_pool", (self.pool, (1, 1))),
        )


class Figure6(nn.Module):
    """The 17x17 module: n x n replaced by 1xn then nx1, with n = 7 (section 3.2).

    Attributes:
      conv: makes a convolution.
      features: of the convolutions inside the branches.
      factorization: what stands for a 7x7: "asymmetric" (1x7 and 7x1), "full" (the 7x7 itself) or
        "3x3" (a pair of 3x3).
    """

    conv: Conv
    features: int
    factorization: str = "asymmetric"

    @property
    def variant(self) -> str:
        """How it differs from the figure, for tables and pictures."""
        return {"asymmetric": "", "full": " with 7x7", "3x3": " with 3x3"}[self.factorization]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 17, 17, channels] to [batch, 17, 17, 768]."""
        kernels = {
            "asymmetric": [(1, 7), (7, 1)],
            "full": [(7, 7)],
            "3x3": [(3, 3), (3, 3)],
        }[self.factorization]
        once = self._layers(kernels)
        twice = self._layers(kernels[::-1] * 2)  # the released code begins with 7x1 here
        return concatenate(
            branch(self.conv, x, "branch1x1", (192, (1, 1))),
            branch(self.conv, x, "branch7x7", *once),
            branch(self.conv, x, "branch7x7dbl", *twice),
            branch(self.conv, avg_pool(x), "branch_pool", (192, (1, 1))),
        )

    def _layers(self, kernels: Sequence[tuple[int, int]]) -> list[Layer]:
        inner = [(self.features, kernel) for kernel in [(1, 1), *kernels[:-1]]]
        return [*inner, (192, kernels[-1])]


class Figure7(nn.Module):
    """The 8x8 module: the last 3x3 expands into a parallel 1x3 and 3x1 (section 3.2).

    Attributes:
      conv: makes a convolution.
      expanded: False keeps that 3x3 whole, with the same 768 outputs: figure 5's module on 8x8.
    """

    conv: Conv
    expanded: bool = True

    @property
    def variant(self) -> str:
        """How it differs from the figure, for tables and pictures."""
        return "" if self.expanded else " unexpanded"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, 8, 8, channels] to [batch, 8, 8, 2048]."""
        short = branch(self.conv, x, "branch3x3_1", (384, (1, 1)))
        double = branch(self.conv, x, "branch3x3dbl_1", (448, (1, 1)))
        double = branch(self.conv, double, "branch3x3dbl_2", (384, (3, 3)))
        return concatenate(
            branch(self.conv, x, "branch1x1", (320, (1, 1))),
            self._top(short, "branch3x3_2"),
            self._top(double, "branch3x3dbl_3"),
            branch(self.conv, avg_pool(x), "branch_pool", (192, (1, 1))),
        )

    def _top(self, x: jax.Array, name: str) -> jax.Array:
        if not self.expanded:
            return branch(self.conv, x, name, (768, (3, 3)))
        return concatenate(
            branch(self.conv, x, name + "a", (384, (1, 3))),
            branch(self.conv, x, name + "b", (384, (3, 1))),
        )


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

    conv: Conv
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
        x = x.astype(jnp.float32).mean(axis=(1, 2))
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
      branches: name and layers of each, as in `Figure10`.
      pool_first: pool, then convolve; otherwise convolve, then pool.
    """

    conv: Conv
    branches: dict[str, Sequence[Layer]]
    pool_first: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, d, d, k] to [batch, d / 2, d / 2, k + features of the branches]."""
        pool = MaxPool()
        x = pool(x) if self.pool_first else x
        same = self.conv(x.shape[-1], width_multiplier=1.0, name="branch_pool")(x)
        outputs = [branch(self.conv, x, name, *layers) for name, layers in self.branches.items()]
        x = concatenate(*outputs, same)
        return x if self.pool_first else pool(x)


class Figure10(nn.Module):
    """The grid reduction: stride-2 convolutions and a pool side by side (section 5).

    Attributes:
      conv: makes a convolution.
      branches: name and layers of each; the last layer of a branch has stride 2, unpadded.
    """

    conv: Conv
    branches: dict[str, Sequence[Layer]]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, d, d, k] to [batch, d / 2, d / 2, k + features of the branches]."""
        last = partial(self.conv, stride=2, padding="VALID")
        outputs = [
            branch(self.conv, x, name, *layers, last=last) for name, layers in self.branches.items()
        ]
        return concatenate(*outputs, MaxPool()(x))


def stem_factorized(conv: Conv, stride: int = 2, pool: bool = True) -> list[nn.Module]:
    """The released stem, the 7x7 as a sequence of 3x3; `stride` and `pool` vary in table 2."""
    valid = partial(conv, padding="VALID")
    return [
        valid(32, (3, 3), stride, name="Conv2d_1a_3x3"),  # 149x149x32
        valid(32, (3, 3), name="Conv2d_2a_3x3"),  # 147x147x32
        conv(64, (3, 3), name="Conv2d_2b_3x3"),  # 147x147x64
        *([MaxPool(name="MaxPool_3a_3x3")] if pool else []),  # 73x73x64
        *_stem_end(conv),
    ]


def stem_7x7(conv: Conv) -> list[nn.Module]:
    """The released stem with one 7x7 for its first three convolutions (table 3, Inception-v2)."""
    return [
        conv(64, (7, 7), 2, "VALID", name="Conv2d_1a_7x7"),  # 147x147x64
        MaxPool(name="MaxPool_3a_3x3"),  # 73x73x64
        *_stem_end(conv),
    ]


def _stem_end(conv: Conv) -> list[nn.Module]:
    return [
        conv(80, name="Conv2d_3b_1x1"),  # 73x73x80
        conv(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3"),  # 71x71x192
        MaxPool(name="MaxPool_5a_3x3"),  # 35x35x192
    ]


def stem_table1(conv: Conv) -> list[nn.Module]:
    """Table 1's first rows read literally; the last must be padded to give its 35x35x288."""
    valid = partial(conv, padding="VALID")
    return [
        valid(32, (3, 3), 2, name="Conv2d_1a_3x3"),  # 149x149x32
        valid(32, (3, 3), name="Conv2d_2a_3x3"),  # 147x147x32
        conv(64, (3, 3), name="Conv2d_2b_3x3"),  # 147x147x64
        MaxPool(name="MaxPool_3a_3x3"),  # 73x73x64
        valid(80, (3, 3), name="Conv2d_3b_3x3"),  # 71x71x80
        valid(192, (3, 3), 2, name="Conv2d_4a_3x3"),  # 35x35x192
        conv(288, (3, 3), name="Conv2d_4b_3x3"),  # 35x35x288
    ]
