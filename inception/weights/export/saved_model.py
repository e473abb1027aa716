"""The network as a SavedModel of TensorFlow's own operations, so that any version can run it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from inception.weights.export.rebuild import Pairs, rebuild

tf.config.set_visible_devices([], "GPU")  # or it takes the memory that JAX needs


def write(path: Path, function: Callable, image_shape: tuple[int, ...], dtype: Any) -> None:
    """Writes a function from "images" [batch, *image_shape] to "logits", as "serving_default".

    Raises:
      NotImplementedError: see `rebuild`.
    """
    module = tf.Module()
    module.logits = tf.function(
        lambda images: {"logits": rebuild(function, image_shape, dtype, _Operations(), images)[0]},
        input_signature=[tf.TensorSpec((None, *image_shape), dtype, "images")],
        autograph=False,
    )
    tf.saved_model.save(module, path, signatures=module.logits)


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """The logits of images, by what `write` has written."""
    serve = tf.saved_model.load(path).signatures["serving_default"]
    return serve(images=tf.constant(images))["logits"].numpy()


class _Operations:
    """TensorFlow's: a `rebuild.Library`."""

    def convolution(self, images: Any, kernel: np.ndarray, strides: Any, padding: Pairs) -> Any:
        return tf.nn.conv2d(images, kernel, strides, [(0, 0), *padding, (0, 0)])

    def max_pool(self, images: Any, window: Any, strides: Any, padding: Pairs) -> Any:
        return tf.nn.max_pool2d(images, window, strides, [(0, 0), *padding, (0, 0)])

    def sum_pool(self, images: Any, window: Any, strides: Any, padding: Pairs) -> Any:
        padded = tf.pad(images, [(0, 0), *padding, (0, 0)])  # its averages leave padding out
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
