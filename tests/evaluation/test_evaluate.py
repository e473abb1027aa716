"""Evaluation: crops and models averaged, images left out, and counts exact on any devices."""

import json
import socket
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import inception
from inception.data import DataError
from inception.data.augment import scale_pixels
from inception.data.crops import eval_crops
from inception.data.preprocessing import Preprocessing
from inception.data.sources import ArraySource, FakeSource
from inception.distributed import sharding
from inception.errors import CheckpointError, ConfigError
from inception.evaluation.evaluator import Evaluator, crops_per_pass, present_classes
from inception.weights import WeightsError
from tests import fake_runs, processes
from tests.conftest import TINY

EXAMPLES = 11  # a prime: it fits no batch


@pytest.fixture(scope="module")
def runs(tiny, digits, tmp_path_factory):
    """A folder with two runs of one step with other seeds, "0" and "1"."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        fake_runs.write_checkpoint(tiny(f"seed={seed}"), folder / str(seed), digits(slice(0, 40)))
    return folder


@pytest.fixture(scope="module")
def two(runs):
    """The model of the runs and the states of both."""
    trained = [inception.restore_run(runs / seed) for seed in ("0", "1")]
    return trained[0].model, trained


def _probabilities(model, state, images: np.ndarray) -> np.ndarray:
    logits, _ = model.apply(state.variables("ema"), scale_pixels(images), train=False)
    return np.asarray(jax.nn.softmax(logits), np.float64)


def _evaluate(config, source, models, states) -> dict:
    return Evaluator(config, source, models, sharding.make_mesh())(states, 7)


def _expected(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    order = np.argsort(-probabilities, axis=1)
    rows = np.arange(len(labels))
    return {
        "top1": float((order[:, 0] == labels).mean()),
        "top5": float((order[:, :5] == labels[:, None]).any(axis=1).mean()),
        "loss": float(-np.log(probabilities[rows, labels]).mean()),
        "confidence": float(probabilities.max(axis=1).mean()),
    }


def _assert_results(results: dict, expected: dict[str, float]) -> None:
    actual = {name: results["ema"][name] for name in expected}
    assert actual == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(
    ("images", "crops", "limit", "expected"),
    [(2, 12, 24, 12), (2, 12, 23, 6), (8, 144, 256, 24), (1, 144, 7, 6), (4, 12, 1, 1)],
)
def test_crops_pass_in_equal_parts_that_fit(images, crops, limit, expected):
    assert crops_per_pass(images, crops, limit) == expected


@pytest.mark.parametrize(
    ("crops", "batch_size", "passing"),
    [(12, 30, 24), pytest.param(144, 50, 48, marks=pytest.mark.slow)],
)
def test_probabilities_are_averaged_over_an_images_crops(
    two, tiny, digits, monkeypatch, crops, batch_size, passing
):
    """As computed crop by crop, in batches that hold no more crops than asked for."""
    model, states = two
    passed = set()

    def spy(images, *scale):
        passed.add(len(images))
        return scale_pixels(images, *scale)

    monkeypatch.setattr(sys.modules["inception.predict.predictor"], "scale_pixels", spy)
    config = tiny(f"eval.crops={crops}", f"eval.batch_size={batch_size}")
    source = digits(slice(0, 3))
    means, labels = [], []
    for index in range(3):
        image, label = source[index]
        crops_of = eval_crops(np.repeat(image, 3, axis=-1), Preprocessing(75), crops)
        assert len(crops_of) == crops
        means.append(_probabilities(model, states[0], crops_of).mean(axis=0))
        labels.append(label)
    results = _evaluate(config, source, [model], states[:1])
    assert (results["step"], results["examples"], results["excluded"]) == (7, 3, 0)
    _assert_results(results, _expected(np.array(means), np.array(labels)))
    assert passed == {passing}


def test_probabilities_are_averaged_over_models(two, tiny, digits):
    model, states = two
    source = digits(slice(0, EXAMPLES))
    images = [
        eval_crops(np.repeat(source[i][0], 3, -1), Preprocessing(75)) for i in range(EXAMPLES)
    ]
    labels = np.array([source[i][1] for i in range(EXAMPLES)])
    members = [_probabilities(model, state, np.concatenate(images)) for state in states]
    results = _evaluate(tiny(), source, [model, model], states)
    _assert_results(results, _expected(np.mean(members, axis=0), labels))
    alone = _evaluate(tiny(), source, [model], states[:1])
    twice = _evaluate(tiny(), source, [model, model], [states[0]] * 2)
    assert alone["ema"]["loss"] != pytest.approx(results["ema"]["loss"], rel=1e-4)
    assert twice["ema"]["loss"] == pytest.approx(alone["ema"]["loss"], rel=1e-6)


@pytest.mark.rounding
def test_listed_images_are_left_out_and_both_counts_are_reported(two, tiny, tmp_path):
    model, states = two
    (tmp_path / "list").write_text("1\n4\n999\n")
    source = FakeSource(6, num_classes=10, image_size=90)
    some = _evaluate(tiny(f"eval.exclude={tmp_path}/list"), source, [model], states[:1])
    assert (some["examples"], some["excluded"]) == (4, 2)
    left = [source[index] for index in (1, 2, 4, 5)]
    rest = ArraySource([image for image, _ in left], [label for _, label in left], num_classes=10)
    alone = _evaluate(tiny(), rest, [model], states[:1])
    assert some["ema"]["confusion"] == alone["ema"]["confusion"]
    assert some["ema"]["wrong"] == [[1, 2, 4, 5][index] for index in alone["ema"]["wrong"]]
    assert some["ema"]["loss"] == pytest.approx(alone["ema"]["loss"], rel=1e-6)


def test_only_present_classes_may_be_the_answer(two, tiny, digits):
    model, states = two
    _, labels = zip(*digits(slice(0, 200)), strict=True)
    source = digits(np.flatnonzero(np.isin(labels, (2, 5)))[:9])
    assert np.flatnonzero(present_classes(source)).tolist() == [2, 5]
    unread = ArraySource(["nowhere.png"] * 2, [2, 5], num_classes=10)
    assert np.flatnonzero(present_classes(unread)).tolist() == [2, 5]
    results = _evaluate(tiny("eval.classes=present"), source, [model], states[:1])
    predicted = np.array(results["ema"]["confusion"]).sum(axis=0)
    assert np.flatnonzero(predicted).tolist() in ([2], [5], [2, 5])
    free = _evaluate(tiny(), source, [model], states[:1])
    assert results["ema"]["loss"] < free["ema"]["loss"]
    assert results["ema"]["top5"] == 1


def test_weights_that_give_no_numbers_have_no_hit(two, tiny, digits):
    """With every class allowed and with some; and one bad model makes the ensemble bad."""
    model, states = two
    nan = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), states[0].variables("ema"))
    broken = types.SimpleNamespace(variables=lambda weights: nan)
    for overrides in [(), ("eval.classes=present",)]:
        for models, members in [([model], [broken]), ([model] * 2, [states[0], broken])]:
            results = _evaluate(tiny(*overrides), digits(slice(0, 5)), models, members)
            for weights in ("ema", "raw"):
                assert (results[weights]["top1"], results[weights]["top5"]) == (0, 0)
                assert results[weights]["not_finite"] == results["examples"] == 5
    finite = _evaluate(tiny(), digits(slice(0, 5)), [model], states[:1])
    assert finite["ema"]["not_finite"] == 0


@pytest.mark.slow
def test_an_ensemble_of_runs_and_checkpoints(runs, tiny, digits, tmp_path):
    source = digits(slice(40, 51))
    ensemble = f"eval.ensemble={runs}/0,{runs}/1/checkpoints/1"
    results = inception.evaluate_run(tiny(ensemble), tmp_path / "new", source=source)
    assert results["members"] == [f"{runs}/{seed}/checkpoints/1" for seed in (0, 1)]
    stored = json.loads((tmp_path / "new" / "eval_validation_ensemble_of_2.json").read_text())
    assert stored == results
    assert (tmp_path / "new" / "eval_validation_ensemble_of_2_confusion.png").exists()
    with pytest.raises(WeightsError, match="nowhere holds no weights"):
        inception.evaluate_run(tiny("eval.ensemble=nowhere"), tmp_path, source=source)
    with pytest.raises(ConfigError, match="checkpoints/1 in it instead"):
        inception.evaluate_run(tiny(ensemble), tmp_path, step=1, source=source)
    for bad, message in (
        (",", "without empty paths"),
        (f"{runs}/0,,{runs}/1", "without empty paths"),
        (f"{runs}/0,{runs}/0/checkpoints/1", "twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            inception.evaluate_run(tiny(f"eval.ensemble={bad}"), tmp_path, source=source)
    with pytest.raises(ConfigError, match="--mode=eval"):
        inception.train_and_evaluate(tiny(ensemble), tmp_path / "new", source, source)


@pytest.mark.slow
def test_other_crops_and_data_do_not_overwrite_a_result(runs, tiny, digits):
    inception.evaluate_run(tiny(), runs / "0", source=digits(slice(40, 51)))
    inception.evaluate_run(tiny("eval.crops=12"), runs / "0", source=digits(slice(40, 43)))
    other = tiny("dataset=imagenet_a", "eval.split=test")
    inception.evaluate_run(other, runs / "0", source=digits(slice(40, 43)))
    names = {file.name for file in (runs / "0").glob("eval_*.json")}
    assert names == {
        "eval_validation_1.json",
        "eval_validation_1_12_crops.json",
        "eval_imagenet_a_test_1.json",
    }


def test_evaluations_of_other_settings_do_not_overwrite_each_other(runs, tiny, tmp_path, capsys):
    source = FakeSource(4, num_classes=10, image_size=90)
    (tmp_path / "list").write_text("1\n99\n")
    ensemble = f"eval.ensemble={runs}/0"
    for other in [(), (f"eval.exclude={tmp_path}/list",), ("data_dir=elsewhere",), ()]:
        inception.evaluate_run(tiny(ensemble, *other), tmp_path / "new", source=source)
    whole, part, elsewhere = (
        json.loads((tmp_path / "new" / f"eval_validation_1{suffix}.json").read_text())
        for suffix in ("", "_2", "_3")
    )
    assert len(list((tmp_path / "new").glob("*.json"))) == 3
    assert elsewhere["data_dir"] == "elsewhere"
    assert (whole["examples"], whole["eval"]["exclude"]) == (4, "")
    assert (part["examples"], part["excluded"]) == (3, 1)
    assert f"of 2 images in {tmp_path}/list some are not" in capsys.readouterr().out


def test_nothing_left_to_count_is_refused(runs, tiny, tmp_path):
    (tmp_path / "list").write_text("1\n2\n")
    with pytest.raises(DataError, match="none of 2 images is left to count"):
        inception.evaluate_run(
            tiny(f"eval.exclude={tmp_path}/list"), runs / "0", source=FakeSource(2, 10, 90)
        )


def test_classes_in_another_order_are_refused(runs, tiny, digits, capsys):
    source = digits(slice(40, 44))
    source.class_names = source.class_names[::-1]
    with pytest.raises(CheckpointError, match=r"class 0 is '0' for .* and '9' in the data"):
        inception.evaluate_run(tiny(), runs / "0", source=source)
    source.class_names = ("null", *map(str, range(1, 10)))
    inception.evaluate_run(tiny("eval.split=renamed"), runs / "1", source=source)
    assert "warning: class 0 is '0'" in capsys.readouterr().out


_PROGRAM = """
import json, sys
import jax, inception
from inception.distributed import processes
from inception.data.sources import FakeSource

workdir, *overrides = sys.argv[1:]
processes.connect()
config = inception.load_config("configs/digits.py", overrides)
results = inception.evaluate_run(config, workdir, source=FakeSource(11, 10, 90))
print(json.dumps({"devices": jax.device_count(), **results}))
"""


def _in_processes(count: int, devices: int, workdir: Path) -> list[dict]:
    """The results of an evaluation shared by processes with so many devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    overrides = [*TINY, "eval.batch_size=4"]
    together = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    started = [
        processes.start(
            _PROGRAM, workdir, *overrides, devices=devices, **together, JAX_PROCESS_ID=str(number)
        )
        for number in range(count)
    ]
    return [processes.result(process) for process in started]


@pytest.mark.rounding
@pytest.mark.slow
def test_counts_are_exact_on_any_number_of_devices_and_processes(runs):
    """11 images in batches of 4, rounded up to the devices, so that the last is mostly padding."""
    (one,) = _in_processes(1, 1, runs / "1")
    assert (one["examples"], sum(map(sum, one["ema"]["confusion"]))) == (11, 11)
    for count, devices in [(1, 8), (2, 2)]:
        for several in _in_processes(count, devices, runs / "1"):
            assert several.pop("devices") == count * devices
            assert (several["examples"], several["excluded"]) == (11, 0)
            for weights in ("ema", "raw"):
                assert several[weights]["confusion"] == one[weights]["confusion"]
                for name in ("top1", "top5", "per_class", "wrong"):
                    assert several[weights][name] == one[weights][name]
                assert several[weights]["loss"] == pytest.approx(one[weights]["loss"], rel=1e-5)
