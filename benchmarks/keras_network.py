"""Keras's Inception-v3 on TensorFlow, called as `model.predict` calls it."""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.cases import Case, Contender
from benchmarks.fastest import Call, fastest


def infer(case: Case) -> Contender:
    """The function from uint8 to logits, compiled by tf.function or by XLA, whichever is faster."""
    tf.config.threading.set_intra_op_parallelism_threads(case.threads)
    tf.config.threading.set_inter_op_parallelism_threads(case.threads)
    if case.dtype == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    network = keras.applications.InceptionV3(
        weights=None,
        input_shape=(case.size, case.size, 3),
        classes=case.num_classes,
        classifier_activation=None,
    )
    shape = (case.batch, case.size, case.size, 3)
    images = tf.constant(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))

    def forward(images):
        return network(tf.cast(images, tf.float32) / 127.5 - 1, training=False)

    def compiled(by_xla: bool) -> Call:
        call = tf.function(forward, jit_compile=by_xla)
        return lambda: call(images).numpy()

    step, found = fastest(
        {"tf.function": lambda: compiled(False), "jit_compile": lambda: compiled(True)}
    )
    description = (
        f"Keras {keras.__version__}, {images.device[-5:]}, uint8 to logits, the faster of {found}"
    )
    return Contender(step, lambda: None, description)
