"""The obvious Inception-v3 in Flax: what ours is measured against, lever by lever.

nn.BatchNorm, nn.max_pool, nn.avg_pool and one nn.Conv for every box of the paper's figures.
Parameters and statistics have our names, so `Network.apply` takes the variables of
`inception.Inception` unchanged. Only the released network is here, and batch normalization is over
the whole batch. How it is trained and used: flax_naive_sides.py.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from inception.defaults import get_config
from inception.errors import UserError

# Fields of inception.Inception that are fields here too; the others must be at their defaults.
FIELDS = (
    "width_multiplier",
    "dropout_rate",
    "avg_pool_counts_padding",
    "batch_norm_scale",
    "batch_norm_decay",
    "batch_norm_epsilon",
)
IGNORED = ("batch_norm_group",)


class ConvBN(nn.Module):
    """Convolution, batch normalization, ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"
    stddev: float = 0.1
    width_multiplier: float = 1.0
    batch_norm: Callable[..., nn.Module] = nn.BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        x = nn.Conv(
            max(int(self.features * self.width_multiplier), 16),
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            kernel_init=nn.initializers.truncated_normal(self.stddev),
            dtype=self.dtype,
            name="conv",
        )(x)
        return nn.relu(self.batch_norm(name="bn")(x))


class Mixed5(nn.Module):
    """The 35x35 module."""

    conv: Callable[..., nn.Module]
    pool: Callable
    projection: int

    @nn.compact
    def __call__(self, x):
        """Maps [batch, 35, 35, channels] to [batch, 35, 35, 224 + projection]."""
        conv = self.conv
        one = conv(64, name="branch1x1")(x)
        five = conv(48, name="branch5x5_1")(x)
        five = conv(64, (5, 5), name="branch5x5_2")(five)
        three = conv(64, name="branch3x3dbl_1")(x)
        three = conv(96, (3, 3), name="branch3x3dbl_2")(three)
        three = conv(96, (3, 3), name="branch3x3dbl_3")(three)
        pool = conv(self.projection, name="branch_pool")(self.pool(x))
        return jnp.concatenate([one, five, three, pool], axis=-1)


class Mixed6a(nn.Module):
    """From the 35x35 to the 17x17 grid."""

    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x):
        """Maps [batch, 35, 35, 288] to [batch, 17, 17, 768]."""
        conv, end = self.conv, partial(self.conv, kernel=(3, 3), stride=2, padding="VALID")
        three = end(384, name="branch3x3")(x)
        double = conv(64, name="branch3x3dbl_1")(x)
        double = conv(96, (3, 3), name="branch3x3dbl_2")(double)
        double = end(96, name="branch3x3dbl_3")(double)
        return jnp.concatenate([three, double, nn.max_pool(x, (3, 3), (2, 2))], axis=-1)


class Mixed6(nn.Module):
    """The 17x17 module."""

    conv: Callable[..., nn.Module]
    pool: Callable
    features: int

    @nn.compact
    def __call__(self, x):
        """Maps [batch, 17, 17, 768] to the same shape."""
        conv, features = self.conv, self.features
        one = conv(192, name="branch1x1")(x)
        seven = conv(features, name="branch7x7_1")(x)
        seven = conv(features, (1, 7), name="branch7x7_2")(seven)
        seven = conv(192, (7, 1), name="branch7x7_3")(seven)
        double = conv(features, name="branch7x7dbl_1")(x)
        double = conv(features, (7, 1), name="branch7x7dbl_2")(double)
        double = conv(features, (1, 7), name="branch7x7dbl_3")(double)
        double = conv(features, (7, 1), name="branch7x7dbl_4")(double)
        double = conv(192, (1, 7), name="branch7x7dbl_5")(double)
        pool = conv(192, name="branch_pool")(self.pool(x))
        return jnp.concatenate([one, seven, double, pool], axis=-1)


class Mixed7a(nn.Module):
    """From the 17x17 to the 8x8 grid."""

    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x):
        """Maps [batch, 17, 17, 768] to [batch, 8, 8, 1280]."""
        conv, end = self.conv, partial(self.conv, kernel=(3, 3), stride=2, padding="VALID")
        three = conv(192, name="branch3x3_1")(x)
        three = end(320, name="branch3x3_2")(three)
        seven = conv(192, name="branch7x7x3_1")(x)
        seven = conv(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = conv(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = end(192, name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, nn.max_pool(x, (3, 3), (2, 2))], axis=-1)


class Mixed7(nn.Module):
    """The 8x8 module."""

    conv: Callable[..., nn.Module]
    pool: Callable

    @nn.compact
    def __call__(self, x):
        """Maps [batch, 8, 8, channels] to [batch, 8, 8, 2048]."""
        conv = self.conv
        one = conv(320, name="branch1x1")(x)
        three = conv(384, name="branch3x3_1")(x)
        three_a = conv(384, (1, 3), name="branch3x3_2a")(three)
        three_b = conv(384, (3, 1), name="branch3x3_2b")(three)
        double = conv(448, name="branch3x3dbl_1")(x)
        double = conv(384, (3, 3), name="branch3x3dbl_2")(double)
        double_a = conv(384, (1, 3), name="branch3x3dbl_3a")(double)
        double_b = conv(384, (3, 1), name="branch3x3dbl_3b")(double)
        pool = conv(192, name="branch_pool")(self.pool(x))
        return jnp.concatenate([one, three_a, three_b, double_a, double_b, pool], axis=-1)


class AuxLogits(nn.Module):
    """The side head."""

    conv: Callable[..., nn.Module]
    num_classes: int

    @nn.compact
    def __call__(self, x):
        """Maps [batch, 17, 17, 768] to logits; smaller grids have smaller windows."""
        x = nn.avg_pool(x, tuple(min(5, size) for size in x.shape[1:3]), (3, 3))
        x = self.conv(128, name="conv0")(x)
        window = tuple(min(5, size) for size in x.shape[1:3])
        x = self.conv(768, window, padding="VALID", stddev=0.01, name="conv1")(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
        init = nn.initializers.truncated_normal(0.001)
        return nn.Dense(self.num_classes, kernel_init=init, name="fc")(x)


class Network(nn.Module):
    """The released Inception-v3; the fields are those of inception.Inception."""

    num_classes: int = 1000
    width_multiplier: float = 1.0
    dropout_rate: float = 0.2
    avg_pool_counts_padding: bool = False
    batch_norm_scale: bool = False
    batch_norm_decay: float = 0.9997
    batch_norm_epsilon: float = 1e-3
    dtype: Any = jnp.float32
    fast_variance: bool = True  # flax's default; False rounds less, for comparisons

    @nn.compact
    def __call__(self, x, train: bool = False):
        """Maps float [batch, height, width, 3] to the logits of both heads, float32."""
        batch_norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_decay,
            epsilon=self.batch_norm_epsilon,
            use_scale=self.batch_norm_scale,
            use_fast_variance=self.fast_variance,
            dtype=self.dtype,
        )
        conv = partial(
            ConvBN,
            width_multiplier=self.width_multiplier,
            batch_norm=batch_norm,
            dtype=self.dtype,
        )
        pool = partial(
            nn.avg_pool,
            window_shape=(3, 3),
            padding="SAME",
            count_include_pad=self.avg_pool_counts_padding,
        )
        x = x.astype(self.dtype)
        x = conv(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = conv(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = conv(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = conv(80, name="Conv2d_3b_1x1")(x)
        x = conv(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        for name, projection in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = Mixed5(conv, pool, projection, name=name)(x)
        x = Mixed6a(conv, name="Mixed_6a")(x)
        for letter, features in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            x = Mixed6(conv, pool, features, name=f"Mixed_6{letter}")(x)
        aux = AuxLogits(conv, self.num_classes, name="AuxLogits")(x)  # unused: not computed
        x = Mixed7a(conv, name="Mixed_7a")(x)
        x = Mixed7(conv, pool, name="Mixed_7b")(x)
        x = Mixed7(conv, pool, name="Mixed_7c")(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        init = nn.initializers.truncated_normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, name="Logits")(x), aux


def network(config: ConfigDict, num_classes: int) -> Network:
    """The config's network.

    Raises:
      UserError: when the config is not of the released Inception-v3.
    """
    defaults = get_config().model
    for name, value in config.model.items():
        if name not in (*FIELDS, *IGNORED) and value != defaults[name]:
            raise UserError(
                f"config.model.{name}={value!r}: flax-naive has only {defaults[name]!r}, so leave "
                "the field as it is"
            )
    chosen = {name: config.model[name] for name in FIELDS}
    return Network(num_classes, **chosen, dtype=jnp.dtype(config.dtype))
