"""The training step: accumulation, precision, mixup, and skipped steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.distributed import sharding
from inception.errors import ConfigError
from inception.training.state import build
from inception.training.step import TrainStep, check_normalization
from tests import processes
from tests.oracles import in_float64


def _batch(size: int) -> dict:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, 75, 75, 3), np.uint8),
        "label": rng.integers(0, 10, size).astype(np.int32),
        "epoch": np.zeros(size, np.int32),
        "example": np.arange(size, dtype=np.int32),
    }


def _step(config):
    recipe, mesh = build(config, num_classes=10, steps_per_epoch=2.5), sharding.make_mesh()
    return TrainStep(recipe, mesh)(recipe.create_state(mesh), _batch(16))


def step_in_float64(config, batch: dict, packed: bool = False):
    """The first state, as a step in float64 leaves it, and the step's metrics; under x64.

    In float32 a fresh network turns rounding into per cents of its gradient (docs/decisions.md).
    """
    recipe, mesh = build(config, num_classes=10, steps_per_epoch=2.5), sharding.make_mesh()
    recipe = dataclasses.replace(recipe, model=recipe.model.clone(dtype=np.float64))
    step = TrainStep(recipe, mesh, packed)
    state, metrics = step(step.pack(in_float64(recipe.create_state(mesh))), batch)
    return step.unpack(state), metrics


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_accumulation_is_the_same_step(tiny):
    """Whole groups are split off, so statistics, loss and gradient agree (without dropout)."""
    overrides = ["model.batch_norm_group=4", "model.dropout_rate=0.0", "optimizer=momentum"]
    once, once_metrics = step_in_float64(tiny(*overrides), _batch(16))
    split, split_metrics = step_in_float64(tiny(*overrides, "accumulation_steps=2"), _batch(16))
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(once.params)))
    np.testing.assert_allclose(once_metrics["weight_norm"], norm, rtol=1e-5)
    for name in ("loss", "aux_loss", "top1", "grad_norm"):
        np.testing.assert_allclose(split_metrics[name], once_metrics[name], rtol=1e-6)
    for ours, theirs in (
        (split.params, once.params),
        (split.batch_stats, once.batch_stats),
        (split.ema_params, once.ema_params),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), ours, theirs
        )


@pytest.mark.slow
def test_bfloat16_computes_in_it_and_keeps_float32_state(tiny):
    state, metrics = _step(tiny("dtype=bfloat16"))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state)} == {"float32", "int32", "uint32"}
    assert metrics["loss"].dtype == jnp.float32
    _, expected = _step(tiny())
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=0.05)


@pytest.mark.slow
def test_mixup_trains(tiny):
    _, metrics = _step(tiny("mixup_alpha=0.2"))
    assert np.isfinite(metrics["loss"])


@pytest.fixture(scope="module")
def program(tiny):
    """The first state of a run, its step (the program of test_loop.py), and a batch."""
    config, mesh = tiny("schedule=staircase", "augmentation=inception"), sharding.make_mesh()
    recipe = build(config, num_classes=10, steps_per_epoch=2.5)
    batch = next(sharding.to_devices(mesh, [_batch(16)]))
    return recipe, recipe.create_state(mesh), TrainStep(recipe, mesh), batch


def _poisoned(state, block: str, value: float):
    """A copy of the state in which all weights of a stage or head are `value`."""
    weights = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), state.params[block])
    return dataclasses.replace(
        jax.tree.map(jnp.copy, state),
        params={**jax.tree.map(jnp.copy, state.params), block: weights},
    )


# NaN in the loss; weights so large that a variance is infinite, though normalized values are not.
@pytest.mark.parametrize(
    ("block", "value"),
    [pytest.param("Logits", np.nan, marks=pytest.mark.slow), ("Mixed_5b", 1e30)],
)
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(program, block, value):
    recipe, state, step, batch = program
    before = _poisoned(state, block, value)
    after, metrics = step(jax.tree.map(jnp.copy, before), batch)
    assert not metrics["finite"]
    assert after.step == before.step + 1
    changed = set()
    leaves = jax.tree_util.tree_leaves_with_path(before)
    for (path, old), new in zip(leaves, jax.tree.leaves(after), strict=True):
        if np.asarray(old).tobytes() != np.asarray(new).tobytes():
            changed.add(jax.tree_util.keystr(path))
            assert new == old + 1
    assert {name.rsplit(".")[-1] for name in changed} == {"step", "count"}
    np.testing.assert_allclose(metrics["learning_rate"], recipe.schedule(0))


def test_no_hit_is_counted_where_a_logit_is_not_finite(program):
    """Class 3 is always the largest logit, and the label of two images."""
    _, state, step, batch = program
    label = jax.device_put(np.int32([3, 3] + 14 * [5]), batch["label"].sharding)
    for other, hits in ((0.0, 2), (-np.inf, 0)):
        before = jax.tree.map(jnp.copy, state)
        before.params["Logits"]["bias"] = jnp.zeros(10).at[3].set(1e6).at[9].set(other)
        assert step(before, batch | {"label": label})[1]["top1"] == hits / 16


def test_the_gradient_s_norm_is_known_block_by_block(program):
    recipe, state, step, batch = program
    _, metrics = step(jax.tree.map(jnp.copy, state), batch)
    names, norms = recipe.blocks(state.params), metrics["block_grad_norms"]
    assert metrics["finite"]
    assert {"Conv2d_1a_3x3", "Mixed_5b", "Logits", "AuxLogits"} <= set(names)
    assert norms.shape == (len(names),)
    np.testing.assert_allclose(np.sqrt(np.square(norms).sum()), metrics["grad_norm"], rtol=1e-5)


def test_a_gpu_does_not_wait_for_the_host_to_see_whether_a_step_is_finite(program):
    _, state, step, batch = program
    programs = {
        platform: step.jitted.trace(state, batch).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert "stablehlo.case" in programs["cpu"]
    assert not {"stablehlo.case", "stablehlo.if"} & set(programs["cuda"].split())


@pytest.mark.parametrize(
    ("packed", "overrides"),
    [
        (True, ("augmentation=inception", "mixup_alpha=0.2", "accumulation_steps=2")),
        (False, ("augmentation=inception_fast", "warmup_epochs=1", "schedule=staircase")),
        (True, ("dtype=bfloat16", "model.batch_norm_scale=true", "input_mean=0.4,0.5,0.5")),
        (False, ("optimizer=momentum", "body_learning_rate_factor=0.1", "model.aux_head=dropout")),
        (True, ("dtype=bfloat16",)),
    ],
)
def test_no_type_or_rank_is_promoted_by_the_way(tiny, packed, overrides):
    """Whoever turns on JAX's checks of them can train."""
    config, mesh = tiny(*overrides), sharding.make_mesh()
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        types = _types(config, mesh, packed)
    assert types == ({"float32", "int32", "uint32"}, {"float32", "bool"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_type_is_promoted_with_jax_enable_x64_either(tiny, dtype):
    config = tiny(f"dtype={dtype}", "augmentation=inception", "mixup_alpha=0.2")
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        types = _types(config, sharding.make_mesh(), packed=False)
    assert types == ({"float32", "int32", "uint32"}, {"float32", "bool"})


def _types(config, mesh, packed: bool) -> tuple[set[str], set[str]]:
    """Of the state, before and after a step, and of the metrics; computes nothing."""
    recipe = build(config, num_classes=10, steps_per_epoch=2.5)
    step = TrainStep(recipe, mesh, packed)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in _batch(16).items()}
    before = jax.eval_shape(step.pack, recipe.abstract_state(mesh))
    after, metrics = jax.eval_shape(step.jitted, before, batch)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(
        lambda leaf: leaf.dtype, before
    )
    return tuple({x.dtype.name for x in jax.tree.leaves(tree)} for tree in (after, metrics))


def test_state_and_metrics_are_float32_also_with_jax_enable_x64(tiny):
    config = tiny("augmentation=inception", "mixup_alpha=0.2", "model.batch_norm_scale=true")
    with jax.enable_x64(True):
        types = _types(config, sharding.make_mesh(), packed=False)
    assert types == ({"float32", "int32", "uint32"}, {"float32", "bool"})


def test_a_step_transfers_nothing(program):
    _, state, step, batch = program
    state = jax.tree.map(jnp.copy, state)
    with jax.transfer_guard("disallow"):
        after, metrics = step(state, batch)
        jax.block_until_ready(metrics)
    assert after.step == 1


_TWICE = """
import json, sys
import jax, numpy as np
import inception
from inception.data.sources import ArraySource
from tests.conftest import TINY

pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
source = ArraySource(pixels, np.arange(40) % 10)
for steps in (1, 2):
    overrides = ["augmentation=inception", f"num_epochs={steps * 16 / 40}"]
    config = inception.load_config("configs/digits.py", [*TINY, *overrides])
    results = inception.train_and_evaluate(config, sys.argv[1], source, source)
run = inception.restore_run(sys.argv[1])
types = {str(leaf.dtype) for leaf in jax.tree.leaves(run.weights)}
print(json.dumps([jax.numpy.zeros(()).dtype.name, results["step"], run.step, sorted(types)]))
"""


@pytest.mark.slow
def test_a_run_and_its_checkpoints_are_float32_also_with_jax_enable_x64(tmp_path):
    process = processes.start(_TWICE, tmp_path / "run", JAX_ENABLE_X64="1")
    assert processes.result(process) == ["float64", 2, 2, ["float32"]]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["batch_size=1"], r"config\.batch_size=1 leaves .* in Mixed_7a/"),
        (["batch_size=1", "model.batch_norm_group=0"], r"config\.batch_size=1 "),
        (["batch_size=4", "accumulation_steps=4"], "batch_size=4 in 4 micro-batches "),
        (["model.batch_norm_group=1"], r"config\.model\.batch_norm_group=1 "),
        (["batch_size=1", "image_size=107"], r"AuxLogits/conv0, AuxLogits/conv1\. .*aux_head=none"),
        (["batch_size=1", "freeze_until=Mixed_7c"], "in AuxLogits/conv0"),
    ],
)
def test_one_value_per_channel_is_refused(tiny, overrides, named):
    with pytest.raises(ConfigError, match=named):
        check_normalization(build(tiny(*overrides), num_classes=10, steps_per_epoch=2.5))


@pytest.mark.parametrize(
    "overrides",
    [
        ["batch_size=2"],
        ["batch_size=4", "accumulation_steps=2", "model.batch_norm_group=0"],
        ["batch_size=1", "image_size=107", "model.aux_head=none"],
        ["batch_size=1", "freeze_until=Mixed_7c", "model.aux_head=none"],
    ],
)
def test_more_than_one_value_per_channel_is_enough(tiny, overrides):
    recipe = build(tiny(*overrides), num_classes=10, steps_per_epoch=2.5)
    assert check_normalization(recipe) is None


def test_mixup_goes_with_odd_groups_and_micro_batches(tiny):
    config = tiny("batch_size=6", "model.batch_norm_group=3", "mixup_alpha=0.2")
    config.accumulation_steps = 2
    recipe, mesh = build(config, num_classes=10, steps_per_epoch=2.5), sharding.make_mesh()
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in _batch(6).items()}
    _, metrics = jax.eval_shape(TrainStep(recipe, mesh).jitted, recipe.abstract_state(mesh), batch)
    assert metrics["loss"].shape == ()
