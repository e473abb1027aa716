"""The network: published parameter counts, every endpoint's shape.

That it computes what Keras's, torchvision's and slim's do is in tests/weights/test_parity_*.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception import Inception
from tests.predict.test_predictor import make_variables


@functools.cache
def _shapes(model: Inception, *size: int):
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def _count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("aux", "scale", "classes", "expected"),
    [
        ("bn", False, 1000, 27_143_152),
        ("none", False, 1000, 23_817_352),
        ("bn", True, 1000, 27_161_264),
        ("none", True, 1000, 23_834_568),
        ("bn", False, 1001, 27_145_970),
        ("none", False, 1001, 23_819_401),
        ("bn", True, 1001, 27_145_970 + 17_216 + 896),
        ("none", True, 1001, 23_819_401 + 17_216),
    ],
)
def test_parameter_counts(aux, scale, classes, expected):
    model = Inception(classes, aux_head=aux, batch_norm_scale=scale)
    assert _count(_shapes(model, 299, 299)[1]["params"]) == expected


def test_number_of_convolutions():
    params = _shapes(Inception(), 299, 299)[1]["params"]
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4]
    assert len(kernels) == 94 + 2


# Grids of the 35x35, 17x17 and 8x8 stages by input size.
GRIDS = {
    75: (7, 3, 1),
    128: (13, 6, 2),
    139: (15, 7, 3),
    224: (25, 12, 5),
    299: (35, 17, 8),
    331: (39, 19, 9),
    512: (61, 30, 14),
}
STEM = {
    "Conv2d_1a_3x3": 32,
    "Conv2d_2a_3x3": 32,
    "Conv2d_2b_3x3": 64,
    "MaxPool_3a_3x3": 64,
    "Conv2d_3b_1x1": 80,
    "Conv2d_4a_3x3": 192,
    "MaxPool_5a_3x3": 192,
}
STAGES = {
    **{"Mixed_5b": (0, 256), "Mixed_5c": (0, 288), "Mixed_5d": (0, 288)},
    **{f"Mixed_6{letter}": (1, 768) for letter in "abcde"},
    **{"Mixed_7a": (2, 1280), "Mixed_7b": (2, 2048), "Mixed_7c": (2, 2048)},
}


def _stem_grids(size: int) -> list[int]:
    first = (size - 3) // 2 + 1
    pooled = (first - 2 - 3) // 2 + 1
    return [first, first - 2, first - 2, pooled, pooled, pooled - 2, (pooled - 5) // 2 + 1]


@pytest.mark.parametrize("size", GRIDS)
def test_every_endpoint_has_the_published_shape(size):
    (logits, endpoints), _ = _shapes(Inception(), size, size)
    expected = {
        name: (2, grid, grid, channels)
        for (name, channels), grid in zip(STEM.items(), _stem_grids(size), strict=True)
    }
    for name, (stage, channels) in STAGES.items():
        expected[name] = (2, GRIDS[size][stage], GRIDS[size][stage], channels)
    expected |= {"aux_logits": (2, 1000), "pooled": (2, 2048)}
    assert {name: leaf.shape for name, leaf in endpoints.items()} == expected
    assert logits.shape == (2, 1000)


@pytest.mark.parametrize("fields", [{}, {"avg_pool_counts_padding": True}, {"fuse": False}])
def test_activations_have_the_networks_type(fields):
    """An average over a number of pixels that is float32 would be float32, and all behind it."""
    (logits, endpoints), _ = _shapes(Inception(dtype=jnp.bfloat16, **fields), 75, 75)
    stages = [*STEM, *STAGES]
    assert {endpoints[name].dtype for name in stages} == {jnp.dtype(jnp.bfloat16)}
    heads = logits, endpoints["aux_logits"], endpoints["pooled"]
    assert {head.dtype for head in heads} == {jnp.dtype(jnp.float32)}


def test_bfloat16_is_float32_within_a_few_units_in_the_last_place():
    """An activation keeps 8 bits, 2^-8 of its size; the errors of a sum's terms average out."""
    model = Inception(7, width_multiplier=0.05)
    variables = make_variables(model)
    images = np.random.default_rng(0).uniform(-1, 1, (8, 75, 75, 3)).astype(np.float32)
    logits, endpoints = jax.jit(model.apply)(variables, images)
    half_logits, half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, images)
    for name, expected in (endpoints | {"logits": logits}).items():
        actual = np.asarray((half | {"logits": half_logits})[name], np.float32)
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        assert 0 < error < 4 * 2**-8, name


def test_inputs_need_not_be_square():
    (_, endpoints), _ = _shapes(Inception(), 139, 299)
    assert endpoints["Mixed_7c"].shape == (2, 3, 8, 2048)
    assert endpoints["aux_logits"].shape == (2, 1000)


@pytest.mark.parametrize("size", [(74, 75), (75, 74), (40, 300)])
def test_small_inputs_are_refused(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels are too small.*75x75"):
        _shapes(Inception(), *size)


@pytest.mark.parametrize(
    ("stem", "size"), [("factorized_stride1", 39), ("factorized_stride1_no_pool", 21)]
)
def test_the_stems_of_table_2_take_smaller_inputs(stem, size):
    model = Inception(stem=stem)
    assert _shapes(model, size, size)[0][1]["Mixed_7c"].shape == (2, 1, 1, 2048)
    with pytest.raises(ValueError, match=f"at least {size}x{size}"):
        _shapes(model, size - 1, size - 1)


def test_images_must_be_rgb():
    with pytest.raises(ValueError, match=r"\[batch, height, width, 3\]"):
        Inception().init(jax.random.key(0), jnp.zeros((1, 75, 75, 1)))


def test_table_1_read_literally():
    (_, endpoints), _ = _shapes(Inception(outline="table1"), 299, 299)
    grids = [(name, leaf.shape[1:]) for name, leaf in endpoints.items() if leaf.ndim == 4]
    assert dict(grids)["Conv2d_4b_3x3"] == (35, 35, 288)  # table 1's last stem row
    modules = [shape for name, shape in grids if name.startswith("Mixed")]
    assert modules == (
        [(35, 35, 288)] * 3 + [(17, 17, 768)] * 6 + [(8, 8, 1280)] + [(8, 8, 2048)] * 2
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"stem": "5x5"},
        {"aux_head": "yes"},
        {"factorization": "9x9"},
        {"reduction": "none"},
        {"outline": "table2"},
        {"outline": "table1", "stem": "7x7"},
        {"width_multiplier": 0.0},
        {"dropout_rate": 1.0},
        {"batch_norm_decay": 1.5},
        {"batch_norm_epsilon": 0.0},
        {"batch_norm_group": -1},
        {"num_classes": 0},
    ],
)
def test_senseless_fields_are_refused_by_name(fields):
    with pytest.raises(ValueError, match=list(fields)[-1]):
        Inception(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"reduction": "pool_first"},
        {"reduction": "convolve_first"},
        {"factorization": "full"},
        {"factorization": "3x3"},
        {"expanded_filter_bank": False},
        {"relu_between_3x3": False},
        {"aux_head": "plain"},
        {"aux_head": "dropout"},
        {"stem": "7x7"},
    ],
)
def test_a_variant_keeps_the_shape_of_every_stage_it_shares(fields):
    (_, released), _ = _shapes(Inception(), 299, 299)
    (_, variant), _ = _shapes(Inception(**fields), 299, 299)
    assert set(released) - set(variant) <= set(STEM)
    assert all(variant[name].shape == released[name].shape for name in variant if name in released)


@pytest.mark.slow
def test_a_linear_unit_between_the_3x3_changes_the_function_not_the_weights():
    images = np.random.default_rng(0).normal(size=(1, 75, 75, 3)).astype(np.float32)
    relu, linear = (
        Inception(10, width_multiplier=0.05, aux_head="none", relu_between_3x3=relu)
        for relu in (True, False)
    )
    variables = jax.jit(relu.init)(jax.random.key(0), images)
    outputs = [jax.jit(model.apply)(variables, images)[1]["Mixed_5b"] for model in (relu, linear)]
    assert not np.allclose(*outputs)


def _differ(old, new) -> bool:
    return any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), old, new)))


def test_frozen_stages_normalize_by_running_averages_and_pass_no_gradient():
    model = Inception(width_multiplier=0.05)
    variables, images = make_variables(model), np.random.default_rng(0).normal(size=(2, 75, 75, 3))
    stages = model.stages()
    frozen = stages[: stages.index("Mixed_5b") + 1]

    @jax.jit
    def run(variables, images):
        def train(params, frozen):
            rngs, mutable = {"dropout": jax.random.key(0)}, ["batch_stats"]
            (_, ends), new = model.apply(
                {**variables, "params": params},
                *(images, True),
                frozen=frozen,
                rngs=rngs,
                mutable=mutable,
            )
            # "Mixed_5c" alone, so that only the first layers are compiled.
            statistics = {name: new["batch_stats"][name] for name in ("Mixed_5b", "Mixed_5c")}
            return ends["Mixed_5c"].sum(), (ends["Mixed_5b"], statistics)

        grads, (thawed, _) = jax.grad(train, has_aux=True)(variables["params"], ())
        grads, (end, statistics) = jax.grad(train, has_aux=True)(variables["params"], frozen)
        grads = {name: grads[name] for name in statistics}
        return model.apply(variables, images)[1]["Mixed_5b"], end, thawed, statistics, grads

    expected, end, thawed, statistics, grads = run(variables, images)
    np.testing.assert_array_equal(end, expected)
    assert np.abs(thawed - expected).max() > 1e-3
    for name, moves in (("Mixed_5b", False), ("Mixed_5c", True)):
        assert _differ(grads[name], jax.tree.map(jnp.zeros_like, grads[name])) == moves
        assert _differ(statistics[name], variables["batch_stats"][name]) == moves


@pytest.mark.rounding
@pytest.mark.slow
def test_initializers_are_the_released_codes():
    model = Inception(10, width_multiplier=0.25)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 75, 75, 3)))["params"]
    kernels = {
        0.1: params["Mixed_7c"]["branch3x3dbl_2"]["conv"]["kernel"],
        0.01: params["AuxLogits"]["conv1"]["conv"]["kernel"],
        0.001: params["AuxLogits"]["fc"]["kernel"],
    }
    for stddev, kernel in kernels.items():
        assert np.abs(kernel).max() <= 2 * stddev  # truncated at two deviations
        np.testing.assert_allclose(np.std(kernel), 0.8796 * stddev, rtol=0.1)
    np.testing.assert_allclose(np.std(params["Logits"]["kernel"]), 0.8796 * 0.01, rtol=0.1)
