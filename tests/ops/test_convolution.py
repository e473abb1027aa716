"""convolution.py: oneDNN's convolutions against XLA's, and where each is used."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.ops import convolution
from inception.ops.convolution import conv, prepare_kernels, with_kernels
from inception.ops.platforms import ANY, compiled_for, reference

pytestmark = pytest.mark.rounding

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
    return tuple(rng.standard_normal(shape, np.float32) for shape in (x, kernel))


def _output_and_gradients(conv, arrays):
    """The output, and the gradients of a sum of it with weights that depend on nothing."""
    y, gradients = jax.vjp(conv, *arrays)
    return y, *gradients(jnp.cos(jnp.arange(y.size)).reshape(y.shape))


def _are_close(ours, expected) -> bool:
    """Whether arrays are equal but for 5e-6 of the largest value; an error says where not."""
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-6 * np.abs(other).max(initial=0))
    return True


_xlas = convolution.reference


@needs_onednn
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_outputs_and_gradients_are_xlas(geometry):
    x, kernel, stride, padding = GEOMETRIES[geometry]
    how = {"stride": stride, "padding": padding}
    arrays = _arrays(x, kernel)
    ours = jax.jit(partial(_output_and_gradients, partial(conv, **how)))(arrays)
    xlas = jax.jit(partial(_output_and_gradients, partial(_xlas, **how)))(arrays)
    assert _are_close(ours, xlas)


@needs_onednn
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_second_derivatives_are_xlas(geometry):
    """In both modes: reverse over reverse, forward over reverse, forward over forward."""
    x, kernel, stride, padding = GEOMETRIES[geometry]
    images, kernels = _arrays(x, kernel)
    arrays = images, kernels / np.sqrt(kernels[..., 0].size)  # so that outputs are about 1
    along = tuple(np.roll(array, 1) for array in arrays)

    def derivatives(conv):
        def loss(*arrays):
            return jnp.sin(conv(*arrays, stride=stride, padding=padding)).sum()

        def slope(*arrays):
            return jax.jvp(loss, arrays, along)[1]

        gradient = jax.grad(loss, argnums=(0, 1))
        reverse = jax.grad(lambda *arrays: _dot(gradient(*arrays), along), argnums=(0, 1))
        return (
            *reverse(*arrays),
            *jax.jvp(gradient, arrays, along)[1],
            jax.jvp(slope, arrays, along)[1],
        )

    ours, xlas = (jax.jit(partial(derivatives, each))() for each in (conv, _xlas))
    assert _are_close(ours, xlas)


def _dot(ones, others):
    return sum((one * other).sum() for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_prepared_kernels_serve_every_batch(geometry, batch):
    (_, *size), kernel_shape, stride, padding = GEOMETRIES[geometry]
    how = {"stride": stride, "padding": padding}
    x, kernel = _arrays((batch, *size), kernel_shape)

    @jax.jit
    def prepare(kernel):
        with prepare_kernels() as kernels:
            conv(jnp.zeros((1, *size)), kernel, **how)
        return kernels

    kernels = prepare(kernel)
    assert [each.shape for each in kernels] == [kernel.shape]

    def prepared(x):
        with with_kernels(kernels):
            return conv(x, jnp.zeros_like(kernel), **how)

    ours = _output_and_gradients(prepared, [x])
    assert _are_close(ours, _output_and_gradients(lambda x: _xlas(x, kernel, **how), [x]))


def test_kernels_are_the_convolutions_own_outside():
    x, kernel = _arrays((1, 4, 4, 3), (1, 1, 3, 2))
    expected = conv(x, jnp.asarray(kernel))
    with with_kernels([jnp.zeros_like(kernel)]):
        assert not conv(x, jnp.asarray(kernel)).any()
    assert _are_close([conv(x, jnp.asarray(kernel))], [expected])


@needs_onednn
def test_its_reference_is_xlas():
    with reference("conv"):
        assert "inception_onednn" not in _lowered()


@needs_onednn
@pytest.mark.parametrize("axes", [(0, None), (1, 0), (None, 2)])
def test_a_mapped_convolution_is_that_of_each_slice(axes):
    x, kernel = _arrays((3, 3, 8, 8, 3), (3, 3, 3, 3, 3))
    x = x if axes[0] is not None else x[0]
    kernel = kernel if axes[1] is not None else kernel[0]
    assert _are_close([jax.vmap(conv, axes)(x, kernel)], [jax.vmap(_xlas, axes)(x, kernel)])


def _lowered(dtype=jnp.float32, **settings) -> str:
    x, kernel = jnp.ones((1, 8, 8, 16), dtype), jnp.ones((3, 3, 16, 16), dtype)
    loss = jax.jit(jax.grad(lambda x, kernel: conv(x, kernel).sum()))
    return loss.trace(x, kernel).lower(**settings).as_text()


@needs_onednn
def test_only_float32_on_a_cpu_is_onednns():
    assert "inception_onednn" in _lowered()
    assert "inception_onednn" not in _lowered(jnp.bfloat16)
    assert "inception_onednn" not in _lowered(lowering_platforms=("tpu",))
    assert "inception_onednn" not in _lowered(lowering_platforms=("cuda",))
    with compiled_for(ANY):
        assert "inception_onednn" not in _lowered()
    assert "inception_onednn" in _lowered()


@needs_onednn
@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(jax, "device_count", 2), (jax, "default_backend", "gpu"), (convolution, "cores", 64)],
)
def test_it_is_xlas_with_several_devices_on_accelerators_and_with_many_cores(
    module, name, value, monkeypatch
):
    monkeypatch.setattr(module, name, lambda: value)
    assert "inception_onednn" not in _lowered()


@pytest.mark.parametrize("x", [(2, 8, 8, 5), (8, 8, 16)])
def test_shapes_that_do_not_fit_are_refused(x):
    with pytest.raises(ValueError, match=r"cannot be convolved with a kernel \[3, 3, 16, 16\]"):
        jax.eval_shape(conv, jnp.ones(x), jnp.ones((3, 3, 16, 16)))


@needs_onednn
def test_a_program_for_any_batch_is_xlas():
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 8, 8, 16), jnp.float32)
    x, kernel = _arrays((2, 8, 8, 16), (3, 3, 16, 16))
    program = jax.export.export(jax.jit(lambda x: conv(x, jnp.asarray(kernel))))(images)
    assert _are_close([program.call(x)], [_xlas(x, kernel)])


@needs_onednn
@pytest.mark.parametrize(
    ("x", "kernel"), [((0, 8, 8, 3), (3, 3, 3, 4)), ((2, 8, 8, 0), (3, 3, 0, 4))]
)
def test_empty_arrays_are_xlas(x, kernel):
    assert _are_close([conv(*map(jnp.ones, (x, kernel)))], [_xlas(*map(jnp.ones, (x, kernel)))])


@needs_onednn
def test_a_nan_stays_one():
    x, kernel = _arrays((1, 4, 4, 16), (1, 1, 16, 16))
    kernel[0, 0, 0, 3] = np.nan
    is_nan = jnp.isnan(conv(x, jnp.asarray(kernel))).any((0, 1, 2))
    np.testing.assert_array_equal(is_nan, np.arange(16) == 3)


@needs_onednn
@pytest.mark.parametrize("instructions", ["AVX2", "SSE41"])
def test_older_processors_compute_the_same(instructions):
    """Its methods there use memory that must not be another thread's."""
    program = """
import jax, numpy as np
from inception.ops.convolution import conv
from inception.ops.platforms import ANY, compiled_for
rng = np.random.default_rng(0)
arrays = [rng.standard_normal(s, np.float32) for s in ((16, 4, 4, 192), (7, 1, 192, 192))]
dy = rng.standard_normal((16, 4, 4, 192), np.float32)
def all_of_it():
    y, pull_back = jax.vjp(conv, *arrays)
    return y, *pull_back(dy)
with compiled_for(ANY):
    expected = jax.jit(lambda: all_of_it())()
for _ in range(20):
    for one, other in zip(jax.jit(lambda: all_of_it())(), expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, timeout=120).returncode == 0
