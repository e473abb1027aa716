"""Grad-CAM: what it is at the last stage, and that it is the gradient elsewhere."""

from functools import partial

import jax
import numpy as np
import pytest

from inception import Inception
from inception.data.augment import scale_pixels
from inception.show.grad_cam import _maps, grad_cam, overlay
from tests.fid.networks import loaded

SIZE = 107  # a last grid of 2x2


STAGES = ["MaxPool_5a_3x3", "Mixed_6e", "Mixed_7c"]


@pytest.fixture(scope="module")
def small():
    """A network with random weights, images, and their logits and endpoints."""
    model, variables, _ = loaded(model=Inception(7, width_multiplier=0.05, aux_head="none"))
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    logits, endpoints = jax.jit(model.apply)(variables, scale_pixels(images))
    return model, variables, images, np.asarray(logits), endpoints


@pytest.mark.parametrize("classes", [None, [3, 0]])
def test_at_the_last_stage_it_is_the_class_activation_map(small, classes):
    """There the logits are linear in the mean of the stage (arXiv 1512.04150)."""
    model, variables, images, logits, endpoints = small
    maps = grad_cam(model, variables, images, STAGES, classes=classes)["Mixed_7c"]
    chosen = logits.argmax(axis=1) if classes is None else classes
    kernel = np.asarray(variables["params"]["Logits"]["kernel"])[:, chosen]  # [channels, n]
    expected = np.maximum(np.einsum("nhwc,cn->nhw", endpoints["Mixed_7c"], kernel), 0)
    largest = expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(maps, expected / np.where(largest > 0, largest, 1), atol=1e-4)
    assert maps.max() == 1
    assert maps.shape == (2, 2, 2)
    assert maps.dtype == np.float32


def test_every_stage_has_a_map_of_its_own_grid(small):
    model, variables, images, _, endpoints = small
    found = grad_cam(model, variables, images, STAGES)
    assert [*found] == STAGES
    for stage, maps in found.items():
        assert maps.shape == endpoints[stage].shape[:3]
        assert maps.min() >= 0
        assert maps.max(axis=(1, 2)) == pytest.approx(1)
        assert np.ptp(maps) > 0.1


def test_no_type_is_promoted_also_with_jax_enable_x64(small):
    model, variables, images, *_ = small
    classes = jax.ShapeDtypeStruct((2,), np.int32)
    maps = partial(_maps, model=model.clone(fuse=False), stages=("Mixed_7c",))
    for is_wide in (False, True):
        with jax.enable_x64(is_wide), jax.numpy_dtype_promotion("strict"):
            found = jax.eval_shape(maps, variables, scale_pixels(images), classes)
        assert found["Mixed_7c"].dtype == np.float32


def test_an_unknown_stage_is_named(small):
    model, variables, images, *_ = small
    with pytest.raises(ValueError, match="'pooled' is unknown; the network has"):
        grad_cam(model, variables, images, ["Mixed_7c", "pooled"])


def test_an_overlay_colors_where_the_map_is():
    image = np.full((4, 6, 3), 100, np.uint8)
    left = np.array([[1, 0]], np.float32)
    shown = overlay(image, left)
    assert shown.shape == image.shape
    assert 0 <= shown.min() <= shown.max() <= 1
    np.testing.assert_allclose(shown[:, -1], 100 / 255)
    assert np.abs(shown[:, 0] - 100 / 255).max() > 0.1
