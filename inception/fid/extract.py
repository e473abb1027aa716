"""Features of images: the network after a protocol's resize, in float32 at full precision.

extract = Extractor("fid", protocol="tensorflow", layers=("pooled", "spatial"))
features = extract.features(images)  # uint8 [batch, height, width, 3] -> {layer: [batch, d]}

An Extractor is a pytree. Pass it to your own jitted function as an argument: a function that closes
over it would contain its 95 MB of weights as constants.
"""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from inception.fid import bridge, resize
from inception.fid.bridge import Inception, Mesh, UserError
from inception.fid.protocols import SIZE, Protocol, find_protocol
from inception.fid.statistics import Origin

# Names of layers in papers and tools, and our endpoints. Any other endpoint can be chosen by its
# own name. A layer with a grid is averaged over it, except for sFID's.
LAYERS = {
    "pooled": "pooled",  # pool_3, 2048: FID, KID, precision and recall
    "spatial": "Mixed_6d",  # sFID: 7 channels of a 17x17 grid, 2023
    "logits": "logits",  # 1008, without bias: the Inception Score
    "64": "MaxPool_3a_3x3",  # pytorch-fid's --dims
    "192": "MaxPool_5a_3x3",
    "768": "Mixed_6e",
}
_SYNONYMS = {"2048": "pooled", **{LAYERS[name]: name for name in ("64", "192", "768")}}
# mixed_6/conv:0 is the 1x1 branch, the first of the concatenation; sFID takes 7 of its channels.
_SPATIAL_CHANNELS = 7
PRECISIONS = ("highest", "default")
Layers = tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """Everything that features depend on, except for the values of the weights; static in jit."""

    model: Inception
    protocol: Protocol
    layers: Layers
    precision: str
    weights: str  # SHA-256


@jax.tree_util.register_pytree_node_class
class Extractor:
    """A network for features, with its weights on the devices.

    Args:
      weights: Whatever `inception.load_pretrained` takes, or what it returns.
      protocol: A `Protocol`, its name, or the name of a tool that follows it.
      layers: Names in `LAYERS`, or endpoints of the network.
      precision: "highest", float32 products everywhere; "default" leaves them to the platform:
        bfloat16 on a TPU, TF32 on a GPU. For tracking only, and never compared with the other.
      mesh: The devices; None for all devices.

    Raises:
      UserError: If a layer, protocol or precision is unknown.
    """

    def __init__(
        self,
        weights: str | os.PathLike | tuple[Any, ...],
        protocol: str | Protocol = "tensorflow",
        layers: Sequence[str] = ("pooled",),
        *,
        precision: str = "highest",
        mesh: Mesh | None = None,
    ):
        protocol = find_protocol(protocol)
        if precision not in PRECISIONS:
            raise UserError(f"precision {precision!r} must be one of {PRECISIONS}")
        if not isinstance(weights, tuple):
            weights = bridge.load_network(weights)
        model, variables, *_ = weights
        known = {*LAYERS, *model.stages()}
        wanted = tuple(dict.fromkeys(_SYNONYMS.get(layer, layer) for layer in layers))
        if not wanted or (unknown := [layer for layer in wanted if layer not in known]):
            raise UserError(
                f"layer {unknown[0] if wanted else ''!r} is unknown; it is one of {sorted(known)}"
            )
        sha256 = bridge.digest(model, variables)
        with _precision(precision):
            model, self.variables = bridge.prepare(
                model, variables, SIZE, mesh or bridge.make_mesh()
            )
        self.settings = Settings(model, protocol, wanted, precision, sha256)

    @classmethod
    def abstract(
        cls,
        model: Inception,
        protocol: str | Protocol = "tensorflow",
        layers: Sequence[str] = ("pooled",),
        *,
        mesh: Mesh,
    ) -> "Extractor":
        """An Extractor of shapes and types instead of weights, to compile for devices elsewhere."""
        model, variables = bridge.abstract(model, SIZE, mesh)
        settings = Settings(model, find_protocol(protocol), tuple(layers), "highest", "")
        return cls.tree_unflatten(settings, (variables,))

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Computes features of images of one size, on the devices of the images.

        Args:
          images: uint8 [batch, height, width, 3], 0 to 255, red first.

        Returns:
          float32 [batch, d] for each layer.

        Raises:
          ValueError: If the images have another type or shape.
          UserError: If the Extractor was made for another platform.
        """
        if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)} and must be uint8 "
                "[batch, height, width, 3]; fid.to_uint8 makes them from values in [-1, 1]"
            )
        with _precision(self.settings.precision):
            return _features(self.variables, images, protocol=self.settings.protocol, **self._how)

    def features_of_inputs(self, inputs: jax.Array) -> dict[str, jax.Array]:
        """Computes features of resized and scaled inputs, float32 [batch, 299, 299, 3]."""
        with _precision(self.settings.precision):
            return _of_inputs(self.variables, inputs, **self._how)

    @property
    def _how(self) -> dict[str, Any]:
        """Static arguments; without the digest, so that other weights need no other program."""
        bridge.check_layout(self.variables)
        return {"model": self.settings.model, "layers": self.settings.layers}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of features of each layer."""
        image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.uint8)
        return {name: x.shape[1] for name, x in jax.eval_shape(self.features, image).items()}

    def origin(self, layer: str) -> Origin:
        """The origin of a layer's features, which statistics carry."""
        settings = self.settings
        return Origin(settings.protocol.name, layer, settings.weights, settings.precision)

    def tree_flatten(self) -> tuple[tuple, Settings]:
        """Splits the extractor into its weights and its static fields."""
        return (self.variables,), self.settings

    @classmethod
    def tree_unflatten(cls, settings: Settings, children: tuple) -> "Extractor":
        """The inverse of `tree_flatten`."""
        extractor = object.__new__(cls)
        (extractor.variables,), extractor.settings = children, settings
        return extractor


def to_uint8(images: jax.Array) -> jax.Array:
    """Converts a generator's output in [-1, 1] to pixels as StyleGAN, EDM, ADM and DiT do.

    The result is clip(127.5 x + 128, 0, 255), truncated. Another rounding changes FID; see
    docs/fid.md.
    """
    return jnp.clip(127.5 * images + 128, 0, 255).astype(jnp.uint8)


def _precision(precision: str) -> Any:
    """Sets the precision of products that are traced inside, also in a caller's jit."""
    return jax.default_matmul_precision("highest") if precision == "highest" else nullcontext()


@partial(jax.jit, static_argnames=("protocol", "model", "layers"))
def _features(
    variables: dict, images: jax.Array, *, protocol: Protocol, model: Inception, layers: Layers
) -> dict[str, jax.Array]:
    return _of_inputs(variables, resize.to_input(images, protocol), model=model, layers=layers)


@partial(jax.jit, static_argnames=("model", "layers"))
def _of_inputs(
    variables: dict, inputs: jax.Array, *, model: Inception, layers: Layers
) -> dict[str, jax.Array]:
    found = bridge.endpoints(model, variables, inputs)
    return {name: _flat(name, found[LAYERS.get(name, name)]) for name in layers}


def _flat(layer: str, output: jax.Array) -> jax.Array:
    """[batch, d], from [batch, height, width, channels] or [batch, d]."""
    if layer == "spatial":
        return output[..., :_SPATIAL_CHANNELS].reshape(len(output), -1)  # height, width, channel
    return output.mean(axis=(1, 2)) if output.ndim == 4 else output
