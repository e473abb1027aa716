"""convolution.py: oneDNN's convolutions against XLA's, and where each is used."""

import os
from functools import partial
from importlib import metadata, util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception import convolution
from inception.convolution import convolve, pack, portable

GEOMETRIES = {  # x, kernel, stride, padding: every kind of the network, small
    "1x1": ((2, 8, 8, 48), (1, 1, 48, 32), 1, "SAME"),
    "64 channels": ((2, 8, 8, 64), (3, 3, 64, 64), 1, "SAME"),
    "1x7": ((2, 9, 9, 32), (1, 7, 32, 48), 1, "SAME"),
    "7x1": ((2, 9, 9, 32), (7, 1, 32, 48), 1, "SAME"),
    "3x3 between stages": ((2, 13, 13, 32), (3, 3, 32, 64), 2, "VALID"),
    "3x3 on images": ((2, 15, 15, 3), (3, 3, 3, 32), 2, "VALID"),
    "even size, stride 2": ((2, 14, 14, 16), (3, 3, 16, 16), 2, "SAME"),
    "5x5, odd channels": ((3, 10, 7, 17), (5, 5, 17, 19), 1, "SAME"),
    "whole map": ((2, 5, 5, 16), (5, 5, 16, 24), 1, "VALID"),
}
needs_onednn = pytest.mark.skipif(
    not convolution.is_onednn_used(),
    reason="oneDNN is not used here: pip install -r requirements-cpu.txt && pip install -e .",
)


def _arrays(x: tuple, kernel: tuple) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape, np.float32) for shape in (x, kernel, kernel[-1:]))


def _output_and_gradients(convolve, arrays):
    """The output, and the gradients of a sum of it with weights that depend on nothing."""
    y, gradients = jax.vjp(convolve, *arrays)
    return y, *gradients(jnp.cos(jnp.arange(y.size)).reshape(y.shape))


def _assert_close(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(other).max())


@needs_onednn
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_outputs_and_gradients_are_xlas(geometry):
    x, kernel, stride, padding = GEOMETRIES[geometry]
    how = {"stride": stride, "padding": padding, "relu": True}
    arrays = _arrays(x, kernel)
    ours = jax.jit(partial(_output_and_gradients, partial(convolve, **how)))(arrays)
    xlas = partial(convolution._by_xla, **how)
    _assert_close(ours, jax.jit(partial(_output_and_gradients, xlas))(arrays))


@needs_onednn
def test_without_bias_and_relu():
    x, kernel, _ = _arrays(*GEOMETRIES["1x7"][:2])
    ours = _output_and_gradients(convolve, (x, kernel))
    xlas = partial(convolution._by_xla, bias=None, stride=1, padding="SAME", relu=False)
    _assert_close(ours, _output_and_gradients(xlas, (x, kernel)))


@needs_onednn
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_packed_kernel_serves_every_batch(geometry, batch):
    (_, *size), kernel_shape, stride, padding = GEOMETRIES[geometry]
    how = {"stride": stride, "padding": padding}
    x, kernel, bias = _arrays((batch, *size), kernel_shape)
    packed = jax.jit(lambda kernel: pack(kernel, (1, *size), **how))(kernel)

    def gradient(convolve, kernel):
        return _output_and_gradients(lambda x: convolve(x, kernel, bias, relu=True, **how), [x])

    expected = gradient(convolution._by_xla, kernel)
    _assert_close(gradient(partial(convolve, packed=True), packed), expected)
    assert packed.shape == kernel.shape


@needs_onednn
def test_a_mapped_convolution_is_that_of_each_slice():
    x, kernel, _ = _arrays((3, 2, 8, 8, 16), (3, 3, 16, 16))
    mapped = jax.vmap(lambda x: convolve(x, kernel))(x)
    _assert_close(mapped, [convolve(part, jnp.asarray(kernel)) for part in x])


def _lowered(dtype=jnp.float32, **settings) -> str:
    x, kernel = jnp.ones((1, 8, 8, 16), dtype), jnp.ones((3, 3, 16, 16), dtype)
    loss = jax.jit(jax.grad(lambda x, kernel: convolve(x, kernel).sum()))
    return loss.trace(x, kernel).lower(**settings).as_text()


@needs_onednn
def test_only_float32_on_a_cpu_is_onednns():
    assert "inception_onednn" in _lowered()
    assert "inception_onednn" not in _lowered(jnp.bfloat16)
    assert "inception_onednn" not in _lowered(lowering_platforms=("tpu",))
    assert "inception_onednn" not in _lowered(lowering_platforms=("cuda",))
    with portable():
        assert "inception_onednn" not in _lowered()
    assert "inception_onednn" in _lowered()


@needs_onednn
@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(jax, "device_count", 2), (jax, "default_backend", "gpu"), (os, "cpu_count", 64)],
)
def test_it_is_xlas_with_several_devices_on_accelerators_and_with_many_cores(
    module, name, value, monkeypatch
):
    monkeypatch.setattr(module, name, lambda: value)
    assert "inception_onednn" not in _lowered()


def _absent(package: str) -> list:
    raise metadata.PackageNotFoundError(package)


@pytest.mark.parametrize(
    ("module", "name", "found"),
    [
        (util, "find_spec", lambda _: None),
        (metadata, "files", lambda _: []),
        (metadata, "files", _absent),
    ],
)
def test_it_is_xlas_where_onednn_is_not_installed(module, name, found, monkeypatch):
    monkeypatch.setattr(module, name, found)
    assert not convolution._load.__wrapped__()


@needs_onednn
@pytest.mark.parametrize("policy", [None, "active"])
def test_loading_leaves_the_environment_as_it_was(policy, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert convolution._load.__wrapped__()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
