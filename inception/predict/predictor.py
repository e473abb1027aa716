"""Inference: any number of images through a network, to logits and endpoints.

A Predictor needs only (model, variables, preprocessing), from a run, a checkpoint or anyone's
weights. Evaluation uses it too.

predict = inception.Predictor(*inception.load_pretrained("runs/v3"), endpoints=["pooled"])
outputs = predict(images)                             # uint8 [n, size, size, 3], any n
for index, outputs in predict.stream(["a.jpg", "b.jpg"]):  # files, encoded bytes or pixels
    ...
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from inception.data.augment import scale_pixels
from inception.data.preprocessing import Preprocessing
from inception.distributed import sharding
from inception.network.fused import fold_batch_norm
from inception.network.model import Inception
from inception.ops.convolution import prepare_kernels, with_kernels

Outputs = dict[str, np.ndarray]


class Predictor:
    """A network with its weights, compiled for images of its preprocessing's size.

    Args:
      model: The network.
      variables: Its "params" and "batch_stats"; batch normalization is folded into them, once.
      preprocessing: Preprocessing that the weights were trained for.
      endpoints: Names of the model's endpoints to return besides "logits": a stage such as
        "Mixed_6e", "pooled" or "aux_logits". Others are not computed.
      batch_size: Number of images that go through all devices at once.
      mesh: The devices; None for all of this process.

    Raises:
      ValueError: For an unknown endpoint, or a batch_size below 1.
    """

    def __init__(
        self,
        model: Inception,
        variables: dict,
        preprocessing: Preprocessing | None = None,
        *,
        endpoints: Sequence[str] = (),
        batch_size: int = 64,
        mesh: Mesh | None = None,
    ):
        self.model = model.clone(batch_norm_folded=True)
        self.preprocessing = preprocessing or Preprocessing()
        self.mesh = mesh or sharding.make_mesh(local=True)
        self.variables, self._kernels = _prepare(
            jax.device_put(variables, sharding.replicated(self.mesh)),  # once, not in every batch
            model=self.model,
            size=self.preprocessing.image_size,
            aux_head="aux_logits" in endpoints,
        )
        self.endpoints = tuple(endpoints)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; it must be at least 1")
        self._limit = -(-batch_size // self.mesh.size) * self.mesh.size
        for name in self.endpoints:
            if name not in (known := self._known_endpoints()):
                raise ValueError(f"endpoint {name!r} is unknown; the network has {known}")

    def on_devices(self, images: jax.Array) -> dict[str, jax.Array]:
        """Logits and endpoints of a batch that is on the devices already.

        Args:
          images: uint8 [batch, size, size, 3].

        Returns:
          "logits" [batch, classes] and the endpoints, on the devices.
        """
        outputs = _forward(
            self.variables,
            self._kernels,
            images,
            model=self.model,
            endpoints=self.endpoints,
            mean=self.preprocessing.mean,
            std=self.preprocessing.std,
        )
        return {name: outputs[name] for name in ("logits", *self.endpoints)}

    def __call__(self, images: np.ndarray) -> Outputs:
        """Logits and endpoints of images that are cropped and resized already.

        Args:
          images: uint8 [n, size, size, 3], any n.

        Returns:
          "logits" float32 [n, classes] and the endpoints, [n, ...].

        Raises:
          ValueError: For images of another type or shape.
        """
        images, size = np.asarray(images), self.preprocessing.image_size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)}, and must be uint8 "
                f"[n, {size}, {size}, 3]. `stream` crops and resizes images of any size"
            )
        parts = [
            self._batch(images[start : start + self._limit])
            for start in range(0, max(1, len(images)), self._limit)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def stream(
        self,
        images: Sequence,
        *,
        threads: int = 0,
        max_pixels: int | None = None,
        on_error: Callable[[int, Exception], None] | None = None,
    ) -> Iterator[tuple[np.ndarray, Outputs]]:
        """Reads, decodes and preprocesses images, and yields batch after batch of their outputs.

        Args:
          images: Paths, encoded files (bytes) or pixels, uint8 [height, width, 3].
          threads: Number of decoding threads; 0: one for each core that this process may use.
          max_pixels: Largest number of pixels of an image as it is stored; None: 178,956,970,
            Pillow's limit.
          on_error: Called with the index of an image that cannot be read and the reason; None
            raises it.

        Yields:
          The indices of a batch's images, int32 [batch], without those that cannot be read, and
          their outputs.

        Raises:
          BadImage: For an image that cannot be read, without `on_error`.
          MemoryError: For one whose pixels do not fit into memory, without `on_error`.
        """
        from inception.data.decode import MAX_PIXELS  # OpenCV and Grain serve only this
        from inception.data.stream import predict_stream

        batches = predict_stream(
            images,
            self.preprocessing,
            batch_size=self._limit,
            threads=threads,
            max_pixels=max_pixels or MAX_PIXELS,
            on_error=on_error,
        )
        for batch in batches:
            good = batch["index"] >= 0
            if good.any():
                yield batch["index"][good], self._batch(batch["image"][good, 0])

    def _batch(self, images: np.ndarray) -> Outputs:
        """Pads at most `_limit` images to one of a few sizes, as each size is compiled."""
        size = self.mesh.size
        while size < len(images):
            size = min(2 * size, self._limit)
        padded = np.zeros((size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        outputs = self.on_devices(jax.device_put(padded, sharding.split(self.mesh)))
        # Copies, because arrays from a device are read-only.
        return {name: np.array(value)[: len(images)] for name, value in outputs.items()}

    def _known_endpoints(self) -> list[str]:
        size = self.preprocessing.image_size
        image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
        mean, std = self.preprocessing.mean, self.preprocessing.std
        apply = partial(_apply, model=self.model, aux_head=True, mean=mean, std=std)
        return sorted(jax.eval_shape(apply, self.variables, image))


@partial(jax.jit, static_argnames=("model", "size", "aux_head"))
def _prepare(
    variables: dict, *, model: Inception, size: int, aux_head: bool
) -> tuple[dict, list[jax.Array]]:
    """The variables with batch normalization folded, and the kernels prepared for convolutions.

    The network itself is not computed, because its output is not returned.
    """
    folded = fold_batch_norm(variables, model.batch_norm_epsilon)
    with prepare_kernels() as kernels:
        model.apply(folded, jnp.zeros((1, size, size, 3)), aux_head=aux_head)
    return folded, kernels


@partial(jax.jit, static_argnames=("model", "endpoints", "mean", "std"))
def _forward(variables: dict, kernels: list, images: jax.Array, *, model, endpoints, mean, std):
    aux_head = "aux_logits" in endpoints
    with with_kernels(kernels):
        outputs = _apply(variables, images, model=model, mean=mean, std=std, aux_head=aux_head)
    return {name: outputs[name] for name in ("logits", *endpoints)}


def _apply(variables: dict, images: jax.Array, *, model: Inception, mean, std, aux_head: bool):
    """All outputs by name."""
    logits, endpoints = model.apply(
        variables, scale_pixels(images, mean, std), train=False, aux_head=aux_head
    )
    return {"logits": logits, **endpoints}


def has_answer(logits: jax.Array | np.ndarray) -> jax.Array:
    """Whether all logits of a row are finite; otherwise no class counts as its answer.

    Args:
      logits: Float [..., classes], as the network returns them.

    Returns:
      Bool [...].
    """
    return jnp.isfinite(logits).all(axis=-1)
