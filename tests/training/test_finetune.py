"""Fine-tuning: what is taken from the weights, what stays frozen, and that it pays."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import inception
from inception.config import flatten
from inception.data.preprocessing import Preprocessing
from inception.data.sources import ArraySource
from inception.distributed import sharding
from inception.errors import CheckpointError, ConfigError
from inception.training import finetune
from inception.training.loop import train_and_evaluate
from inception.training.state import build
from inception.weights import Pretrained, WeightsError, load_any, save
from inception.weights.pretrained import shapes_of
from inception.workdir.identity import read_config
from inception.workdir.restore import restore_run
from tests.predict.test_predictor import make_variables

TRAIN, HELD_OUT = slice(0, 40), slice(100, 120)
FROZEN = ("Conv2d_1a_3x3", "Conv2d_4a_3x3", "Mixed_5b", "Mixed_5d")
SCALING = Preprocessing(75, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Seven classes, and another network than the config's in all that weights decide."""
    model = inception.Inception(
        7,
        width_multiplier=0.05,
        avg_pool_counts_padding=True,
        mixed_7c_pool="max",
        batch_norm_scale=True,
        batch_norm_epsilon=2e-3,
        batch_norm_decay=0.5,
        dropout_rate=0.5,
    )
    return Pretrained(model, make_variables(model), SCALING, (), "torchvision", "0" * 64)


@pytest.fixture(scope="module")
def whole_run(weights, tiny, digits, tmp_path_factory):
    """Four steps at once; behind them the directory of weights is gone."""
    folder = tmp_path_factory.mktemp("tuned")
    save(folder / "weights", weights)
    config = tiny(
        "num_epochs=1.6",
        "schedule=staircase",
        "optimizer=momentum",
        "freeze_until=Mixed_5d",
        "body_learning_rate_factor=0.5",
        f"init_from={folder / 'weights'}",
    )
    results = train_and_evaluate(config, folder / "run", digits(TRAIN), digits(HELD_OUT))
    first = config.copy_and_resolve_references()
    first.num_epochs = 0.8
    train_and_evaluate(first, folder / "stopped", digits(TRAIN), digits(HELD_OUT))
    shutil.rmtree(folder / "weights")
    return config, folder, results


@pytest.mark.slow
def test_the_weights_fields_are_the_runs(whole_run, weights):
    config, folder, _ = whole_run
    stored = flatten(read_config(folder / "run"))
    assert (stored["input_mean"], stored["input_std"]) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    for name in ("avg_pool_counts_padding", "mixed_7c_pool", "batch_norm_scale"):
        assert stored[f"model.{name}"] == getattr(weights.model, name) != config.model[name]
    assert stored["model.batch_norm_epsilon"] == 2e-3
    for name in ("model.batch_norm_decay", "model.dropout_rate", "image_size", "init_from"):
        assert stored[name] == flatten(config)[name]


@pytest.mark.slow
def test_frozen_stages_are_the_weights_bit_for_bit_and_the_others_are_not(whole_run, weights):
    run = restore_run(whole_run[1] / "run")
    assert (run.step, run.model.num_classes) == (4, 10)
    for kind in ("raw", "ema"):
        for group, stages in run.variables(kind).items():
            for stage, tree in stages.items():
                if stage in FROZEN:
                    jax.tree.map(
                        np.testing.assert_array_equal, tree, weights.variables[group][stage]
                    )
                elif stage.startswith("Mixed_6"):
                    old = jax.tree.leaves(weights.variables[group][stage])
                    pairs = zip(jax.tree.leaves(tree), old, strict=True)
                    assert all((new != old).any() for new, old in pairs)


@pytest.mark.slow
def test_a_stopped_run_goes_on_without_the_weights_to_the_same_end(whole_run, digits):
    config, folder, results = whole_run
    again = train_and_evaluate(config, folder / "stopped", digits(TRAIN), digits(HELD_OUT))
    assert again == results
    ends = [restore_run(folder / name).weights for name in ("run", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    config = config.copy_and_resolve_references()
    config.init_from = "elsewhere"
    with pytest.raises(CheckpointError, match=r"config\.init_from: .* 'elsewhere' now"):
        train_and_evaluate(config, folder / "stopped", digits(TRAIN), digits(HELD_OUT))


@pytest.mark.slow
def test_it_is_evaluated_and_loaded_with_the_scaling_of_its_weights(whole_run, digits):
    config, folder, results = whole_run
    assert config.input_mean == [0.5, 0.5, 0.5]
    evaluated = inception.evaluate_run(config, folder / "run", source=digits(HELD_OUT))
    assert evaluated["ema"] == results["ema"]
    loaded = load_any(folder / "run")
    assert (loaded.preprocessing.mean, loaded.preprocessing.std) == (SCALING.mean, SCALING.std)
    assert loaded.labels == tuple(map(str, range(10)))


def _first_state(config, num_classes):
    """As `create_state` makes it, without compiling anything."""
    mesh = sharding.make_mesh()
    abstract = build(config, num_classes, 2.5).abstract_state(mesh)
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 9, leaf.dtype), abstract), mesh


@pytest.mark.parametrize(
    ("classes", "image_size", "random"),
    [
        (7, 75, ()),
        (10, 75, ("Logits", "AuxLogits/fc")),
        (7, 299, ("AuxLogits/conv1",)),  # its fully connected layer sees another grid
    ],
)
def test_only_the_parts_of_the_heads_that_do_not_fit_start_anew(
    tiny, weights, classes, image_size, random, capsys
):
    arrays = shapes_of(weights.model, image_size)
    values = {name: np.random.default_rng(0).normal(size=s) for name, s in arrays.items()}
    weights = dataclasses.replace(weights, variables=unflatten_dict(values, sep="/"))
    config = tiny("model.batch_norm_scale=true")
    state, mesh = _first_state(config, classes)
    started = finetune.start(state, weights, (), mesh)
    for kind in ("raw", "ema"):
        for name, leaf in flatten_dict(started.variables(kind), sep="/").items():
            if any(f"/{part}/" in name for part in random):
                assert (leaf == 9).all()
            else:
                np.testing.assert_array_equal(leaf, values[name].astype(np.float32))
    assert all(part in capsys.readouterr().out for part in random[:1])


def test_classes_of_other_names_are_warned_of(tiny, weights, capsys):
    state, mesh = _first_state(tiny("model.batch_norm_scale=true"), 7)
    finetune.start(state, weights, "abcdefg", mesh)
    assert "warning" not in capsys.readouterr().out
    named = dataclasses.replace(weights, labels=tuple("abCdefg"))
    finetune.start(state, named, "abcdefg", mesh)
    assert "'C'" in capsys.readouterr().out


def test_a_sigmoid_that_becomes_a_softmax_is_warned_of(tiny, weights, capsys):
    """The head is kept, but from now on one class excludes the others."""
    sigmoid = dataclasses.replace(weights, activation="sigmoid")
    for classes, expected in ((7, True), (10, False)):  # 10: the head is new
        state, mesh = _first_state(tiny("model.batch_norm_scale=true"), classes)
        finetune.start(state, sigmoid, (), mesh)
        assert ("sigmoid of each class" in capsys.readouterr().out) == expected


def test_an_auxiliary_head_that_is_not_wanted_is_left_out(tiny, weights, tmp_path):
    save(tmp_path / "weights", weights)
    config = tiny(f"init_from={tmp_path / 'weights'}", "model.aux_head=none")
    adopted, loaded = finetune.prepare(config, tmp_path / "run")
    assert adopted.model.aux_head == "none"
    state, mesh = _first_state(adopted, 7)
    assert "AuxLogits" not in finetune.start(state, loaded, (), mesh).params


def test_a_run_that_crashed_before_its_first_checkpoint_loads_its_weights_again(
    tiny, weights, tmp_path
):
    save(tmp_path / "weights", weights)
    config = tiny(f"init_from={tmp_path / 'weights'}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    assert finetune.prepare(config, tmp_path / "run")[1] is not None


def test_without_weights_nothing_changes(tiny, tmp_path):
    config = tiny()
    assert finetune.prepare(config, tmp_path) == (config, None)


def test_weights_that_are_not_there_or_do_not_fit_are_refused(tiny, weights, digits, tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere.*model\.json.*config\.json"):
        train_and_evaluate(tiny("init_from=nowhere"), tmp_path / "run", digits(TRAIN))
    small = dataclasses.replace(weights, model=weights.model.clone(outline="table1"))
    arrays = {name: np.zeros(shape, "f4") for name, shape in shapes_of(small.model, 75).items()}
    save(tmp_path / "w", dataclasses.replace(small, variables=unflatten_dict(arrays, sep="/")))
    config = tiny(f"init_from={tmp_path / 'w'}", "freeze_until=MaxPool_5a_3x3")
    with pytest.raises(ConfigError, match=r"freeze_until='MaxPool_5a_3x3'.*Conv2d_4b_3x3"):
        finetune.prepare(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fine_tuning_beats_training_from_scratch_at_equal_steps(tiny, digits, tmp_path):
    """Five digits, then the five others, which neither weights nor labels have seen."""
    everything = digits(slice(None))
    labels = np.array([everything[index][1] for index in range(len(everything))])
    images = np.stack([everything[index][0] for index in range(len(everything))])

    def source(digits, part):
        chosen = np.flatnonzero(np.isin(labels, digits))[part]
        return ArraySource(images[chosen], labels[chosen] % 5, list(map(str, digits)))

    def top1(name, digits, steps, *overrides):
        fields = ["optimizer=momentum", "learning_rate=0.2", "model.batch_norm_group=16"]
        # Staircase decay in steps, so that all three runs share a program.
        fields += ["schedule=staircase", "decay_epochs=10", f"num_epochs={steps / 30}"]
        fields += ["eval.every_epochs=100", *overrides]
        train, held_out = source(digits, slice(0, 480)), source(digits, slice(480, 680))
        return train_and_evaluate(tiny(*fields), tmp_path / name, train, held_out)["ema"]["top1"]

    first = top1("first", range(5), 100)
    scratch = top1("scratch", range(5, 10), 20)
    tuned = top1("tuned", range(5, 10), 20, f"init_from={tmp_path / 'first'}")
    print(f"\nfive digits: {first:.1%}; the others: {scratch:.1%} from scratch, {tuned:.1%} tuned")
    assert first > 0.6
    assert tuned > scratch + 0.15
