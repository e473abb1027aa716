"""convolution.py: oneDNN's convolutions against XLA's, and where each is used."""

import os
import subprocess
import sys
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
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-6 * np.abs(other).max())


@needs_onednn
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_outputs_and_gradients_are_xlas(geometry):
    x, kernel, stride, padding = GEOMETRIES[geometry]
    how = {"stride": stride, "padding": padding}
    arrays = _arrays(x, kernel)
    ours = jax.jit(partial(_output_and_gradients, partial(convolve, **how)))(arrays)
    xlas = partial(convolution._by_xla, **how)
    _assert_close(ours, jax.jit(partial(_output_and_gradients, xlas))(arrays))


@needs_onednn
def test_without_a_bias():
    x, kernel, _ = _arrays(*GEOMETRIES["1x7"][:2])
    ours = _output_and_gradients(convolve, (x, kernel))
    xlas = partial(convolution._by_xla, bias=None, stride=1, padding="SAME")
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
        return _output_and_gradients(lambda x: convolve(x, kernel, bias, **how), [x])

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


@needs_onednn
def test_a_nan_stays_one():
    x, kernel, bias = _arrays((1, 4, 4, 16), (1, 1, 16, 16))
    kernel[0, 0, 0, 3] = np.nan
    np.testing.assert_array_equal(
        jnp.isnan(convolve(x, jnp.asarray(kernel), bias, relu=True)).any((0, 1, 2)),
        np.arange(16) == 3,
    )


@needs_onednn
@pytest.mark.parametrize("instructions", ["AVX2", "SSE41"])
def test_older_processors_compute_the_same(instructions):
    """Its methods there use memory that must not be another thread's."""
    program = """
import jax, numpy as np
from inception import convolution
rng = np.random.default_rng(0)
arrays = [rng.standard_normal(s, np.float32) for s in ((16, 4, 4, 192), (7, 1, 192, 192), (192,))]
dy = rng.standard_normal((16, 4, 4, 192), np.float32)
def all_of_it(convolve):
    y, pull_back = jax.vjp(convolve, *arrays)
    return y, *pull_back(dy)
xlas = lambda *arrays: convolution._by_xla(*arrays, stride=1, padding="SAME")
expected = jax.jit(lambda: all_of_it(xlas))()
for _ in range(20):
    for one, other in zip(jax.jit(lambda: all_of_it(convolution.convolve))(), expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)


@needs_onednn
def test_what_cannot_be_loaded_is_warned_of(monkeypatch):
    def fail(path: str):
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(convolution.ctypes, "CDLL", fail)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with pytest.warns(UserWarning, match="libgomp"):
        assert not convolution._load.__wrapped__()
    assert "OMP_WAIT_POLICY" not in os.environ


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
