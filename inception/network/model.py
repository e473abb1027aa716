"""Inception-v2 and Inception-v3: the stages in order, with the grid of a 299x299 input."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from inception.network import fused, layers, stems
from inception.network.batch_norm import BatchNorm
from inception.network.layers import ConvBN
from inception.network.modules import (
    Figure5,
    Figure6,
    Figure7,
    Figure8,
    Figure9,
    Figure10,
    MakeConv,
    branches_6a,
    branches_7a,
)
from inception.network.pools import AvgPool, max_pool_same
from inception.ops.precision import at_least_float32

# Features inside figure 6's modules. Table 1 has five and says no widths: these are the released
# code's, chosen so that the network has fewer than 25 M parameters (section 3).
FIGURE6 = {"Mixed_6b": 128, "Mixed_6c": 160, "Mixed_6d": 160, "Mixed_6e": 192}
FIGURE6_TABLE1 = {
    "Mixed_6b": 128,
    "Mixed_6c": 128,
    "Mixed_6d": 128,
    "Mixed_6d_2": 160,
    "Mixed_6e": 160,
}

# What the first layers may be, and the smallest input that leaves the 7x7 grid of 35x35's stage.
STEMS: dict[str, tuple[Callable[..., list[nn.Module]], int]] = {
    "factorized": (stems.factorized, 75),
    "7x7": (stems.conv_7x7, 75),
    "factorized_stride1": (partial(stems.factorized, stride=1), 39),
    "factorized_stride1_no_pool": (partial(stems.factorized, stride=1, pool=False), 21),
}

HEADS = ("AuxLogits", "Logits")  # what follows the stages, in order
WEIGHT_KINDS = ("ema", "raw")  # the running averages of a run's weights, and the weights themselves

NETWORK_CHOICES = {
    "outline": ("released", "table1"),
    "stem": tuple(STEMS),
    "aux_head": ("none", "plain", "bn", "dropout"),
    "factorization": ("asymmetric", "full", "3x3"),
    "reduction": ("parallel", "pool_first", "convolve_first"),
    "mixed_7c_pool": ("average", "max"),
}


class Inception(nn.Module):
    """The networks of "Rethinking the Inception Architecture for Computer Vision".

    The defaults are the released Inception-v3. Every field is a choice that the paper or its
    released code discusses; a combination that makes no sense is refused.

    Attributes:
      num_classes: Number of logits.
      outline: "released", or "table1" for the paper's table 1 read literally.
      stem: "factorized" (3x3 convolutions), "7x7" (before the factorization of table 3),
        "factorized_stride1" or "factorized_stride1_no_pool" (table 2's 151x151 and 79x79).
      aux_head: The auxiliary head of figure 8: "none", "plain", "bn" (BN-auxiliary) or "dropout".
      width_multiplier: Factor of all channel counts, rounded as slim's depth_multiplier, at least
        16 channels.
      dropout_rate: Rate of the dropout before the logits.
      relu_between_3x3: A ReLU between figure 5's two 3x3, or a linear unit (section 3.1, figure 2).
      factorization: How figure 6's 7x7 is factorized: "asymmetric", "full" or "3x3" (section 3.2).
      expanded_filter_bank: Figure 7 on the 8x8 grid, or figure 5's module with its channels.
      reduction: "parallel" (figure 10), "pool_first" or "convolve_first" (figure 9).
      avg_pool_counts_padding: Whether average pools count the padding (torchvision, timm) or not
        (TensorFlow, the released code).
      mixed_7c_pool: "average", or "max" as in the network that FID is computed with.
      batch_norm_scale: Whether batch normalization learns a scale (torchvision) or not (paper).
      batch_norm_decay: Decay of the running averages.
      batch_norm_epsilon: Added to the variance.
      batch_norm_group: Number of images normalized together; 0 means the whole batch.
      batch_norm_folded: The network for inference, of the variables of `fused.fold_batch_norm`.
      fuse: Compute some layers together or in another order, to the same result but faster
        (fused.py); False computes every box of the figures by itself and in its place.
      dtype: Type of activations; parameters and statistics stay float32.

    Raises:
      ValueError: For a choice that is not listed above or does not go with another.
    """

    num_classes: int = 1000
    outline: str = "released"
    stem: str = "factorized"
    aux_head: str = "bn"
    width_multiplier: float = 1.0
    dropout_rate: float = 0.2
    relu_between_3x3: bool = True
    factorization: str = "asymmetric"
    expanded_filter_bank: bool = True
    reduction: str = "parallel"
    avg_pool_counts_padding: bool = False
    mixed_7c_pool: str = "average"
    batch_norm_scale: bool = False
    batch_norm_decay: float = 0.9997
    batch_norm_epsilon: float = 1e-3
    batch_norm_group: int = 32
    batch_norm_folded: bool = False
    fuse: bool = True
    dtype: Any = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        for field, choices in NETWORK_CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"Inception: {field}={getattr(self, field)!r}; it is one of {choices}"
                )
        if self.outline == "table1" and self.stem != "factorized":
            raise ValueError(
                f"Inception: stem={self.stem!r} does not go with outline='table1', whose stem is a "
                "factorized one of its own: leave stem='factorized'"
            )
        for field, right, good in (
            ("num_classes", "at least 1", self.num_classes >= 1),
            ("width_multiplier", "greater than 0", self.width_multiplier > 0),
            ("dropout_rate", "in [0, 1)", 0 <= self.dropout_rate < 1),
            ("batch_norm_decay", "in [0, 1)", 0 <= self.batch_norm_decay < 1),
            ("batch_norm_epsilon", "greater than 0", self.batch_norm_epsilon > 0),
            ("batch_norm_group", "0 or more", self.batch_norm_group >= 0),
        ):
            if not good:
                raise ValueError(f"Inception: {field}={getattr(self, field)!r}; it must be {right}")

    @nn.nowrap
    def stages(self) -> tuple[str, ...]:
        """The names of the stages before the heads, in order."""
        return tuple(str(stage.name) for stage in self._stages(lambda stage: self._conv(False)))

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        aux_head: bool | None = None,
        frozen: Sequence[str] = (),
    ) -> tuple[jax.Array, dict]:
        """Classifies `images` [batch, height, width, 3], float, in [-1, 1].

        Args:
          images: At least 75x75 pixels (39x39 and 21x21 with the stems of table 2); any shape.
          train: Use batch statistics and dropout (which needs an rng named "dropout").
          aux_head: Whether the auxiliary head runs; None: in training only, so that weights trained
            at one input size can be evaluated at any other.
          frozen: Stages that are not trained: they normalize by their running averages, and no
            gradient passes their outputs.

        Returns:
          Float32 logits [batch, num_classes], and the endpoints: the output of every stage by
          slim's name, "pooled" [batch, 2048] and, if the auxiliary head ran, "aux_logits".

        Raises:
          ValueError: If the images are too small or not RGB.
        """
        self._check_images(images)
        endpoints = {}
        stages = self._stages(lambda stage: self._conv(train and stage not in frozen))
        for name, x in self._wiring.run(stages, images.astype(self.dtype), frozen):
            endpoints[name] = x
        if self._has_aux_head(train if aux_head is None else aux_head):
            head = Figure8(
                self._conv(train), self.num_classes, self.aux_head, train, name="AuxLogits"
            )
            endpoints["aux_logits"] = head(endpoints["Mixed_6e"])
        x = endpoints["pooled"] = at_least_float32(x).mean(axis=(1, 2))  # 2048
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        init = nn.initializers.truncated_normal(0.01)
        logits = nn.Dense(self.num_classes, kernel_init=init, name="Logits")(x)
        return logits, endpoints

    def _has_aux_head(self, wanted: bool) -> bool:
        return self.aux_head != "none" and (wanted or self.is_initializing())

    @property
    def _wiring(self) -> Any:
        """How layers are joined: as they are drawn, or in fewer passes over memory."""
        return fused if self.fuse else layers

    def _conv(self, train: bool) -> MakeConv:
        """The network's convolution; it takes features, kernel, stride, padding, name, ..."""
        norm = partial(
            BatchNorm,
            decay=self.batch_norm_decay,
            epsilon=self.batch_norm_epsilon,
            scale=self.batch_norm_scale,
            group=self.batch_norm_group,
            train=train,
        )
        return partial(
            ConvBN,
            norm=None if self.batch_norm_folded else norm,
            width_multiplier=self.width_multiplier,
            dtype=self.dtype,
        )

    @nn.nowrap
    def _stages(self, conv_of: Callable[[str], MakeConv]) -> list[nn.Module]:
        """The network from its first layer to the last before the pool.

        Args:
          conv_of: The convolution for a stage, by the stage's name.
        """
        concat = self._wiring.concat

        def conv(*args, name: str, **kwargs) -> ConvBN:  # each layer of the stem is a stage
            return conv_of(name)(*args, name=name, **kwargs)

        def figure(make: Callable[..., nn.Module], *args, name: str, **kwargs) -> nn.Module:
            return make(conv_of(name), *args, concat=concat, name=name, **kwargs)

        literal = self.outline == "table1"
        pool = AvgPool(count_include_pad=self.avg_pool_counts_padding)
        last_pool = max_pool_same if self.mixed_7c_pool == "max" else pool
        short, relu_between = 3 if literal else 5, self.relu_between_3x3
        figure5 = partial(figure, Figure5, pool=pool, short=short, relu_between=relu_between)
        figure6 = partial(figure, Figure6, pool=pool, factorization=self.factorization)
        figure7 = partial(figure, Figure7, expanded=self.expanded_filter_bank)
        reductions: dict[str, Callable[..., nn.Module]] = {
            "parallel": Figure10,
            "pool_first": partial(Figure9, pool_first=True),
            "convolve_first": partial(Figure9, pool_first=False),
        }
        reduction = partial(figure, reductions[self.reduction])
        stem = stems.table1 if literal else STEMS[self.stem][0]
        widths = FIGURE6_TABLE1 if literal else FIGURE6
        return [
            *stem(conv),  # 35x35x192 or 288
            figure5(64 if literal else 32, name="Mixed_5b"),  # 35x35x256; 288 in table 1
            figure5(64, name="Mixed_5c"),  # 35x35x288
            figure5(64, name="Mixed_5d"),  # 35x35x288
            reduction(branches_6a, name="Mixed_6a"),  # 17x17x768
            *(figure6(width, name=name) for name, width in widths.items()),  # 17x17x768
            reduction(branches_7a, name="Mixed_7a"),  # 8x8x1280
            figure7(pool=pool, name="Mixed_7b"),  # 8x8x2048
            figure7(pool=last_pool, name="Mixed_7c"),  # 8x8x2048
        ]

    def _check_images(self, images: jax.Array) -> None:
        smallest = STEMS[self.stem][1]
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images have shape {images.shape}, not [batch, height, width, 3]")
        if min(images.shape[1:3]) < smallest:
            height, width = images.shape[1:3]
            raise ValueError(
                f"images of {height}x{width} pixels are too small: with stem={self.stem!r} the "
                f"network needs at least {smallest}x{smallest}"
            )


def make_model(config: ConfigDict, num_classes: int) -> Inception:
    """The config's network for a data set of `num_classes`."""
    return Inception(num_classes=num_classes, dtype=jnp.dtype(config.dtype), **config.model)


def variables_of(weights: str, leaves: Mapping[str, Any]) -> dict:
    """The model's variables with the "raw" or the "ema" weights, out of a state's leaves."""
    prefix = {"raw": "", "ema": "ema_"}[weights]
    return {name: leaves[prefix + name] for name in ("params", "batch_stats")}


def blank_image(size: int) -> jax.Array:
    """An image to initialize with, [1, size, size, 3]."""
    return jnp.zeros((1, size, size, 3), jnp.float32)
