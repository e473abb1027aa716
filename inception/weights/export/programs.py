"""The network as a program: images in, logits out, the weights inside, no code of ours needed.

Images are [batch, size, size, 3], any batch, channels last: float32 scaled as the weights want it,
or uint8 pixels where the scaling is inside. Reading, resizing and cropping stay outside. The batch
normalization is folded into the convolutions.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from inception.augment import normalize
from inception.layers import fold_batch_norm
from inception.predict import Predictor
from inception.weights import verify
from inception.weights.export.format import Format, judged
from inception.weights.pretrained import Pretrained

PLATFORMS = ("cpu", "cuda", "tpu")


def program(
    pretrained: Pretrained, preprocessing: bool
) -> tuple[Callable[[jax.Array], jax.Array], tuple[int, int, int], Any]:
    """The function from images to logits, and the shape and type of one image."""
    model = pretrained.model.clone(batch_norm_folded=True)
    variables = fold_batch_norm(pretrained.variables, model.batch_norm_epsilon)
    scaling = pretrained.preprocessing

    def logits(images: jax.Array) -> jax.Array:
        if preprocessing:
            images = normalize(images, scaling.mean, scaling.std)
        return model.apply(variables, images)[0]

    size = scaling.image_size
    return logits, (size, size, 3), np.uint8 if preprocessing else np.float32


def _write_stablehlo(pretrained: Pretrained, path: Path, preprocessing: bool) -> list[str]:
    logits, shape, dtype = program(pretrained, preprocessing)
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), dtype)
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())
    return [f"run it with jax.export.deserialize(content).call, on {', '.join(PLATFORMS)}"]


def _run_stablehlo(path: Path, images: np.ndarray) -> np.ndarray:
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    return np.asarray(exported.call(jax.device_put(images, jax.devices("cpu")[0])))


def _tensorflow() -> Any:
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # JAX's
    return tf


def _write_savedmodel(pretrained: Pretrained, path: Path, preprocessing: bool) -> list[str]:
    _tensorflow()
    from inception.weights.export import saved_model

    saved_model.save(*program(pretrained, preprocessing), path)
    return ['run it with tf.saved_model.load(path).signatures["serving_default"](images=images)']


def _run_savedmodel(path: Path, images: np.ndarray) -> np.ndarray:
    tf = _tensorflow()
    serve = tf.saved_model.load(path).signatures["serving_default"]
    return serve(images=tf.constant(images))["logits"].numpy()


def _write_onnx(pretrained: Pretrained, path: Path, preprocessing: bool) -> list[str]:
    import onnx

    from inception.weights.export import onnx_graph

    onnx.save(onnx_graph.build(*program(pretrained, preprocessing)), path)
    return ['run it with onnxruntime.InferenceSession(path).run(["logits"], {"images": images})']


def _run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def _format(
    suffixes: tuple[str, ...],
    library: str,
    write: Callable[[Pretrained, Path, bool], list[str]],
    run: Callable[[Path, np.ndarray], np.ndarray],
) -> Format:
    def write_and_say(pretrained: Pretrained, path: Path, preprocessing: bool) -> list[str]:
        scaling = pretrained.preprocessing
        size = scaling.image_size
        kind = "uint8 RGB" if preprocessing else "float32 RGB, (x / 255 - mean) / std with "
        kind += "" if preprocessing else f"mean {scaling.mean} and std {scaling.std}"
        outside = "resizing, cropping and the classes' names are not inside"
        notes = write(pretrained, path, preprocessing)
        return [*notes, f"images are [batch, {size}, {size}, 3], {kind}; {outside}"]

    def check(pretrained: Pretrained, path: Path, preprocessing: bool) -> list[str]:
        scaling = pretrained.preprocessing
        pixels = _sample(scaling.image_size)
        with jax.default_matmul_precision("highest"):
            predict = Predictor(pretrained.model, pretrained.variables, scaling)
            ours = predict(pixels)["logits"]
        images = (
            pixels if preprocessing else np.asarray(normalize(pixels, scaling.mean, scaling.std))
        )
        try:
            theirs = run(path, images)
        except ImportError as error:
            return [f"not verified, for {library} is missing ({error}): pip install {library}"]
        reader = f"{library} {importlib.import_module(library).__version__}"
        return [judged([verify.difference("logits", ours, theirs)], reader)]

    return Format(suffixes, write_and_say, check, program=True)


def _sample(size: int) -> np.ndarray:
    """Three images of squares, uint8 [3, size, size, 3]."""
    coarse = np.random.default_rng(0).integers(
        0, 256, (3, size // 8 + 1, size // 8 + 1, 3), np.uint8
    )
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]


FORMATS = {
    "stablehlo": _format((".stablehlo",), "jax", _write_stablehlo, _run_stablehlo),
    "savedmodel": _format((), "tensorflow", _write_savedmodel, _run_savedmodel),
    "onnx": _format((".onnx",), "onnxruntime", _write_onnx, _run_onnx),
}
