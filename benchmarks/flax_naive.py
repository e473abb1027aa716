"""The obvious Inception-v3 in Flax: what ours is measured against, optimization by optimization.

The figures as they are drawn, of nn.Conv, nn.BatchNorm over the whole batch, nn.max_pool and
nn.avg_pool. Parameters and statistics have our names, so `Network.apply` takes the variables of
`inception.Inception` unchanged. How it is trained and used: flax_naive_sides.py.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from inception.network import layers
from inception.network.model import Inception
from inception.network.modules import MakeConv
from inception.ops.platforms import reference


class ConvBN(layers.ConvBN):
    """Convolution, batch normalization, ReLU."""

    def setup(self) -> None:
        """Declares both, under our names."""
        self.conv: Any = nn.Conv(
            self.width,
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            use_bias=self.norm is None,
            kernel_init=nn.initializers.truncated_normal(self.stddev),
            dtype=self.dtype,
        )
        self.bn: Any = self.norm() if self.norm else lambda x: x

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, height', width', features]."""
        x = self.bn(self.conv(x))
        return nn.relu(x) if self.relu else x


class Network(Inception):
    """Inception with these layers; the fields are those of `Inception`.

    Attributes:
      fast_variance: Flax's default; False rounds less, for comparisons.
    """

    fuse: bool = False
    fast_variance: bool = True

    def __call__(self, images, train=False):  # type: ignore[override]
        """Maps float [batch, height, width, 3] to the logits of both heads, float32."""
        with reference("max_pool", "conv"):
            logits, endpoints = super().__call__(images, train, aux_head=True)
        return logits, endpoints["aux_logits"]  # where they are unused, they are not computed

    def _conv(self, train: bool) -> MakeConv:
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_decay,
            epsilon=self.batch_norm_epsilon,
            use_scale=self.batch_norm_scale,
            use_fast_variance=self.fast_variance,
            dtype=self.dtype,
        )
        return partial(ConvBN, norm=norm, width_multiplier=self.width_multiplier, dtype=self.dtype)


def network(config: ConfigDict, num_classes: int) -> Network:
    """The config's network."""
    return Network(num_classes=num_classes, dtype=jnp.dtype(config.dtype), **config.model)
