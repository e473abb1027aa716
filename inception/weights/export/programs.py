"""Exports the network as a program from images to logits, with the weights inside.

It runs without our code. Images are [batch, size, size, 3] for any batch: float32, scaled for the
weights, or uint8 pixels if the program scales them. Reading, resizing and cropping stay outside.
Batch normalizations are folded into the convolutions.
"""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from inception.data.augment import scale_pixels
from inception.network.fused import fold_batch_norm
from inception.weights import verify
from inception.weights.export.format import Format, require_close, scaled
from inception.weights.pretrained import Pretrained

PLATFORMS = ("cpu", "cuda", "tpu")


def program(pretrained: Pretrained, preprocessing: bool) -> tuple[Callable, tuple, Any]:
    """The function from images to logits, the shape of one image, and the type of images."""
    model = pretrained.model.clone(batch_norm_folded=True, fuse=False)
    variables = fold_batch_norm(pretrained.variables, model.batch_norm_epsilon)
    scaling = pretrained.preprocessing

    def logits(images: jax.Array) -> jax.Array:
        if preprocessing:
            images = scale_pixels(images, scaling.mean, scaling.std)
        return model.apply(variables, images)[0]

    size = scaling.image_size
    return logits, (size, size, 3), np.uint8 if preprocessing else np.float32


def _write(
    pretrained: Pretrained, path: Path, preprocessing: bool, *, library: str, call: str
) -> list[str]:
    _LIBRARIES[library][0](path, *program(pretrained, preprocessing))
    size = pretrained.preprocessing.image_size
    images = "uint8 RGB" if preprocessing else f"float32 {scaled(pretrained)}"
    outside = "resizing, cropping and the names of the classes are not included"
    return [f"run it with {call}", f"images are [batch, {size}, {size}, 3], {images}; {outside}"]


def _verify(pretrained: Pretrained, path: Path, preprocessing: bool, *, library: str) -> list[str]:
    scaling = pretrained.preprocessing
    shape = (3, scaling.image_size, scaling.image_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    scaled_images = np.asarray(scale_pixels(pixels, scaling.mean, scaling.std))
    model, variables = pretrained.model, pretrained.variables
    ours = verify.our_endpoints(model, variables, scaled_images, aux_head=False)
    scale = verify.logit_scale(variables, ours)
    images = pixels if preprocessing else scaled_images
    try:
        theirs = _LIBRARIES[library][1](path, np.asarray(images))
    except ImportError as error:
        return [f"not verified: {library} is not installed ({error}). Run pip install {library}"]
    reader = f"{library} {importlib.import_module(library).__version__}"
    found = verify.difference("logits", np.asarray(ours["logits"]), theirs, scale)
    return [require_close([found], reader)]


def _write_stablehlo(path: Path, logits: Callable, shape: tuple, dtype: Any) -> None:
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), dtype)
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def _run_stablehlo(path: Path, images: np.ndarray) -> np.ndarray:
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    return np.asarray(exported.call(jax.device_put(images, jax.devices("cpu")[0])))


def _write_savedmodel(path: Path, logits: Callable, shape: tuple, dtype: Any) -> None:
    from inception.weights.export import saved_model

    saved_model.write(path, logits, shape, dtype)


def _run_savedmodel(path: Path, images: np.ndarray) -> np.ndarray:
    from inception.weights.export import saved_model

    return saved_model.run(path, images)


def _write_onnx(path: Path, logits: Callable, shape: tuple, dtype: Any) -> None:
    import onnx

    from inception.weights.export import onnx_graph

    onnx.save(onnx_graph.build(logits, shape, dtype), path)


def _run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


# By the library that runs it: functions that write a program, and run it on images.
_LIBRARIES = {
    "jax": (_write_stablehlo, _run_stablehlo),
    "tensorflow": (_write_savedmodel, _run_savedmodel),
    "onnxruntime": (_write_onnx, _run_onnx),
}


def _format(suffixes: tuple[str, ...], library: str, call: str) -> Format:
    write = partial(_write, library=library, call=call)
    return Format(suffixes, write, partial(_verify, library=library), program=True)


FORMATS = {
    "stablehlo": _format(
        (".stablehlo",),
        "jax",
        f"jax.export.deserialize(content).call(images), on {', '.join(PLATFORMS)}",
    ),
    "savedmodel": _format(
        (),
        "tensorflow",
        'tf.saved_model.load(path).signatures["serving_default"](images=images)',
    ),
    "onnx": _format(
        (".onnx",),
        "onnxruntime",
        'onnxruntime.InferenceSession(path).run(["logits"], {"images": images})',
    ),
}
