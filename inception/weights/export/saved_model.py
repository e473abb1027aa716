"""The network as a SavedModel of TensorFlow's own operations, which any version can run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from inception.runtime import hide_gpus_from_tensorflow
from inception.weights.export.rebuild import Pairs, rebuild


def write(path: Path, function: Callable, image_shape: tuple[int, ...], dtype: Any) -> None:
    """Writes a function from "images" [batch, *image_shape] to "logits", as "serving_default".

    Raises:
      NotImplementedError: If the function has an unknown operation, see `rebuild`.
    """
    hide_gpus_from_tensorflow()
    module = tf.Module()
    module.logits = tf.function(
        lambda images: {"logits": rebuild(function, image_shape, dtype, _Operations(), images)[0]},
        input_signature=[tf.TensorSpec((None, *image_shape), dtype, "images")],
        autograph=False,
    )
    tf.saved_model.save(module, path, signatures=module.logits)


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The logits of images, by what `write` has written."""
    hide_gpus_from_tensorflow()
    serve = tf.saved_model.load(path).signatures["serving_default"]
    return serve(images=tf.constant(images))["logits"].numpy()


class _Operations:
    """TensorFlow's operations: a `rebuild.Library`."""

    def convolution(self, images: Any, kernel: np.ndarray, strides: Any, padding: Pairs) -> Any:
        named = _name_of(images, kernel.shape[:2], strides, padding)
        if not named:
            images, named = _zeros_around(images, padding), "VALID"
        return tf.nn.conv2d(images, kernel, strides, named)

    def max_pool(self, images: Any, window: Any, strides: Any, padding: Pairs) -> Any:
        named = _name_of(images, window, strides, padding)
        return tf.nn.max_pool2d(images, window, strides, named or [(0, 0), *padding, (0, 0)])

    def sum_pool(self, images: Any, window: Any, strides: Any, padding: Pairs) -> Any:
        padded = _zeros_around(images, padding)  # TensorFlow's averages leave the padding out
        return tf.nn.avg_pool2d(padded, window, strides, "VALID") * np.float32(np.prod(window))

    def concatenate(self, values: list[Any]) -> Any:
        return tf.concat(values, axis=3)

    def sum(self, images: Any) -> Any:
        return tf.reduce_sum(images, axis=(1, 2))

    def matrix_product(self, left: Any, right: np.ndarray) -> Any:
        return tf.matmul(left, right)

    def to_float(self, images: Any) -> Any:
        return tf.cast(images, tf.float32)

    def relu(self, images: Any) -> Any:
        return tf.nn.relu(images)

    def elementwise(self, operation: str, left: Any, right: Any) -> Any:
        by_name = {"add": tf.add, "sub": tf.subtract, "mul": tf.multiply, "div": tf.divide}
        return by_name[operation](left, right)


def _name_of(images: Any, window: Any, strides: Any, padding: Pairs) -> str:
    """TensorFlow's name of a padding, "VALID" or "SAME"; "" if it is neither.

    TensorFlow Lite's converter accepts no explicit padding, not even zeros on all sides.
    """
    if not np.any(padding):
        return "VALID"
    sides = zip(images.shape[1:3], window, strides, padding, strict=True)
    return "SAME" if all(_same(*side) == tuple(side[3]) for side in sides) else ""


def _same(size: int, window: int, stride: int, _: Any) -> tuple[int, int]:
    """The padding of "SAME" before and after a side."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _zeros_around(images: Any, padding: Pairs) -> Any:
    return tf.pad(images, [(0, 0), *padding, (0, 0)]) if np.any(padding) else images
