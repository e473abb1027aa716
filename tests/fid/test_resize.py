"""Resizes as matrices against Pillow, PyTorch and TensorFlow 1's operation."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from inception.fid import resize
from inception.fid.protocols import PROTOCOLS, SIZE
from inception.ops.platforms import compiled_for

ALLOWED = 1e-4 * 255
# Height and width: tiny, around 299, a divisor, not square, and larger.
SIZES = ((1, 1), (2, 31), (32, 32), (64, 64), (256, 256), (298, 300), (299, 64), (400, 300))
SLOW_SIZES = ((1024, 1024), (37, 1000))
# PyTorch and TensorFlow in processes of their own: in one, whichever comes second can crash.
TORCH = """
import sys, numpy as np, torch, torch.nn.functional as F
images = np.load(sys.argv[1])
found = {}
for name, image in images.items():
    x = torch.from_numpy(image.astype(np.float32)).permute(0, 3, 1, 2)
    for kind, antialias in (("torch_bilinear", False), ("torch_antialiased", True)):
        y = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False,
                          antialias=antialias)
        found[f"{kind} {name}"] = y.permute(0, 2, 3, 1).numpy()
np.savez(sys.argv[2], **found)
"""
TENSORFLOW = """
import sys, numpy as np, tensorflow as tf
images = np.load(sys.argv[1])
np.savez(sys.argv[2], **{f"tensorflow_bilinear {name}":
    tf.compat.v1.image.resize_bilinear(image.astype(np.float32), (299, 299)).numpy()
    for name, image in images.items()})
"""


def _noise(height, width):
    """The worst case of a resize: every pixel on its own."""
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (1, height, width, 3), np.uint8)


def _ours(images, kind):
    """By sums, as on a CPU or a GPU; `test_products_are_the_sums` has a TPU's."""
    taps = (resize.taps(size, SIZE, kind) for size in images.shape[1:3])
    return np.asarray(jax.jit(resize.resize)(images, *taps))


def _pillow(images):
    planes = [Image.fromarray(images[0, ..., c].astype(np.float32)) for c in range(3)]
    resized = [plane.resize((SIZE, SIZE), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)[None]


@pytest.mark.rounding
@pytest.mark.parametrize(
    "size", [*SIZES, *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW_SIZES)]
)
def test_bicubic_is_pillows(size):
    images = _noise(*size)
    np.testing.assert_allclose(_ours(images, "pillow_bicubic"), _pillow(images), atol=ALLOWED)


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("package", "program"),
    [("torch", TORCH), pytest.param("tensorflow", TENSORFLOW, marks=pytest.mark.slow)],
)
def test_bilinear_is_that_of(package, program, tmp_path):
    pytest.importorskip(package, reason=f"{package} is the oracle: requirements-oracles.txt")
    inputs, outputs = tmp_path / "images.npz", tmp_path / "resized.npz"
    sizes = SIZES if package == "torch" else (*SIZES, *SLOW_SIZES)
    images = {json.dumps(size): _noise(*size) for size in sizes}
    np.savez(inputs, **images)
    subprocess.run([sys.executable, "-c", program, inputs, outputs], check=True)
    with np.load(outputs) as theirs:
        assert len(theirs) >= len(images)
        for key, expected in theirs.items():
            kind, _, name = key.partition(" ")
            np.testing.assert_allclose(
                _ours(images[name], kind), expected, atol=ALLOWED, err_msg=key
            )


@pytest.mark.rounding
@pytest.mark.parametrize("kind", resize.KINDS)
@pytest.mark.parametrize("size", [(1, 2), (400, 300)])
def test_products_are_the_sums(kind, size):
    """A TPU multiplies by matrices; elsewhere the taps are summed."""
    images = _noise(*size)
    axes = [resize.taps(side, SIZE, kind) for side in size]
    programs = [compiled_for("tpu")(resize.resize), compiled_for("cpu")(resize.resize)]
    text = [jax.jit(each).lower(images, *axes).as_text() for each in programs]
    assert ["dot_general" in each for each in text] == [True, False]
    products, sums = (jax.jit(each)(images, *axes) for each in programs)
    np.testing.assert_allclose(products, sums, atol=ALLOWED)


@pytest.mark.parametrize("kind", resize.KINDS)
@pytest.mark.parametrize("before", [1, 2, 75, 298, 300, 1000])
def test_weights_of_a_pixel_add_up_to_one(kind, before):
    weights = resize.matrix(before, SIZE, kind)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert weights.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 2


@pytest.mark.rounding
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_white_and_black_become_the_ends_of_the_range(protocol):
    images = jnp.asarray([0, 255], jnp.uint8)[:, None, None, None] * jnp.ones(
        (1, 8, 8, 3), jnp.uint8
    )
    inputs = resize.to_input(images, protocol)
    ends = (-1, 1) if protocol.name == "pytorch" else (-1, 127 / 128)
    for image, end in zip(inputs, ends, strict=True):
        np.testing.assert_allclose(image, end, atol=1e-6)


def test_bicubic_overshoots_and_is_clipped():
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[:, 32:] = 255
    assert _ours(images, "pillow_bicubic").max() > 256
    inputs = resize.to_input(jnp.asarray(images), PROTOCOLS["clean"])
    assert inputs.max() == 127 / 128
    assert inputs.min() == -1


def test_an_image_of_the_networks_size_is_copied():
    images = _noise(SIZE, SIZE)
    for kind in resize.KINDS:
        np.testing.assert_array_equal(_ours(images, kind), images)
