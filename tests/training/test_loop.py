"""Training: resuming bit for bit, accumulation, faults, and what a run leaves behind."""

import hashlib
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inception
from inception.data import DataError
from inception.distributed import sharding
from inception.distributed.preemption import Interrupted
from inception.errors import EX_TEMPFAIL, CheckpointError, ConfigError
from inception.training import losses
from inception.training.loop import Trainer
from inception.training.state import build
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.logbook import read_anomalies, read_metrics
from tests import processes

TRAIN, HELD_OUT = slice(0, 40), slice(100, 120)
STEPS_PER_EPOCH = 40 / 16  # epochs end inside batches


def _run(config, digits, workdir):
    return inception.train_and_evaluate(config, workdir, digits(TRAIN), digits(HELD_OUT))


def _newest_state(config, workdir):
    mesh = sharding.make_mesh()
    with Checkpoints(workdir) as saved:
        return saved.restore(build(config, 10, STEPS_PER_EPOCH).abstract_state(mesh))[1]


def _final_hashes(config, workdir) -> dict[str, str]:
    """A digest of every leaf of the newest checkpoint."""
    return {
        jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        for path, leaf in jax.tree_util.tree_leaves_with_path(_newest_state(config, workdir))
    }


@pytest.fixture(scope="module")
def whole_run(tiny, digits, tmp_path_factory):
    """Six steps at once."""
    workdir = tmp_path_factory.mktemp("whole")
    config = tiny("num_epochs=2.4", "schedule=staircase", "augmentation=inception")
    return config, workdir, _run(config, digits, workdir)


def test_what_a_run_leaves_behind(whole_run):
    config, workdir, results = whole_run
    assert json.loads((workdir / "results.json").read_text()) == results
    assert json.loads((workdir / "config.json").read_text()) == {"format": 2, **config.to_dict()}
    data = {"training_images": 40, "classes": [str(i) for i in range(10)]}
    assert json.loads((workdir / "data.json").read_text()) == data
    assert (results["step"], results["split"], results["examples"]) == (6, "validation", 20)
    for weights in ("ema", "raw"):
        assert 0 <= results[weights]["top1"] <= results[weights]["top5"] <= 1
    assert list(workdir.glob("events.out.tfevents.*"))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    wanted = [
        "loss",
        "main_loss",
        "aux_loss",
        "top1",
        "learning_rate",
        "grad_norm",
        "weight_norm",
        "images_per_second",
    ]
    assert {f"train/{name}" for name in wanted} <= set(lines[0])
    assert lines[-1]["eval/ema_top1"] == results["ema"]["top1"]
    with Checkpoints(workdir) as saved:
        assert saved.steps()[-1] == 6


@pytest.mark.parametrize("stop", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_stopped_and_continued_run_ends_in_the_same_state(
    whole_run, tiny, digits, tmp_path, stop
):
    """Epochs have 2.5 steps: 2 lies inside one, 5 at the end."""
    config, workdir, _ = whole_run
    first = config.copy_and_resolve_references()
    first.num_epochs = stop / STEPS_PER_EPOCH
    _run(first, digits, tmp_path)
    _run(config, digits, tmp_path)
    assert _final_hashes(config, tmp_path) == _final_hashes(config, workdir)


def test_a_finished_run_says_so_and_stays_as_it_is(whole_run, digits, capsys):
    config, workdir, results = whole_run
    before = _final_hashes(config, workdir)
    assert _run(config, digits, workdir) == results
    output = capsys.readouterr().out
    assert "is finished" in output
    assert output.count("validation (20 images)") == 1
    assert _final_hashes(config, workdir) == before


class _Faulty:
    """A source that calls `fault` before it gives an image, with how many it has given."""

    def __init__(self, source, fault):
        self._source, self._fault, self._given = source, fault, 0

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        self._fault(self._given)
        self._given += 1
        return self._source[index]


def _unreadable(given):
    """From the fifth image of the third batch on."""
    if given > 36:
        raise OSError("the disk is gone")


def _terminate(given):
    if given == 0:
        os.kill(os.getpid(), signal.SIGTERM)


def _evaluated_steps(workdir) -> list[int]:
    return [line["step"] for line in read_metrics(workdir) if "eval/ema_top1" in line]


@pytest.mark.slow
def test_nothing_is_lost_to_a_fault_or_a_signal(whole_run, digits, tmp_path):
    """The first evaluation fails, and is interrupted when it is made up; then training fails."""
    original, whole, results = whole_run
    config = original.copy_and_resolve_references()
    config.eval.every_epochs = 2 / STEPS_PER_EPOCH
    train, held_out = digits(TRAIN), digits(HELD_OUT)
    bad = _Faulty(held_out, lambda given: _unreadable(given + 30))
    with pytest.raises((OSError, DataError), match="the disk is gone"):
        inception.train_and_evaluate(config, tmp_path, train, bad)
    assert (processes.saved_steps(tmp_path), _evaluated_steps(tmp_path)) == ([2], [])
    with pytest.raises(Interrupted, match="evaluation of step 2") as stopped:
        inception.train_and_evaluate(config, tmp_path, train, _Faulty(held_out, _terminate))
    assert stopped.value.status == EX_TEMPFAIL
    assert (processes.saved_steps(tmp_path), _evaluated_steps(tmp_path)) == ([2], [])
    with pytest.raises((OSError, DataError), match="the disk is gone"):
        inception.train_and_evaluate(config, tmp_path, _Faulty(train, _unreadable), held_out)
    assert processes.saved_steps(tmp_path)[-1] > 2
    assert read_metrics(tmp_path)[-1]["step"] == processes.saved_steps(tmp_path)[-1]
    assert _run(config, digits, tmp_path) == results
    assert _evaluated_steps(tmp_path) == [2, 4, 6]
    assert _final_hashes(config, tmp_path) == _final_hashes(config, whole)


def test_a_workdir_of_another_config_is_refused(whole_run, tiny, digits):
    _, workdir, _ = whole_run
    with pytest.raises(CheckpointError, match=r"config\.label_smoothing: 0\.1 .* 0\.2 now"):
        _run(tiny("label_smoothing=0.2"), digits, workdir)


def test_a_run_does_not_go_on_with_other_classes(whole_run, digits):
    config, workdir, _ = whole_run
    renamed = digits(TRAIN)
    renamed.class_names = (*renamed.class_names[:9], "ten")
    with pytest.raises(CheckpointError, match=r"data\.json lists .*'9', 'ten'"):
        inception.train_and_evaluate(config, workdir, renamed, digits(HELD_OUT))


@pytest.fixture
def poison():
    """Makes the loss of every step NaN whose batch begins with one of the digits 0 to 4."""
    heads_loss = losses.heads_loss

    def poisoned(logits, endpoints, targets, weight):
        loss, parts = heads_loss(logits, endpoints, targets, weight)
        return jnp.where(targets[0].argmax() < 5, jnp.nan, loss), parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "heads_loss", poisoned)
        yield


def _is_finite(state) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_steps_that_are_not_finite_are_left_out_and_named(poison, tiny, digits, tmp_path):
    config = tiny("num_epochs=2.4", "schedule=staircase", "log_every_steps=1")
    _run(config, digits, tmp_path)
    labels = [digits(TRAIN)[index][1] for index in range(40)]
    skipped = {line["step"]: line for line in read_anomalies(tmp_path)}
    assert 0 < len(skipped) < 6
    for line in read_metrics(tmp_path):
        if "train/loss" not in line:
            continue
        bad = line["step"] in skipped
        assert (line["train/loss"] is None, line["train/skipped_steps"]) == (bad, bad)
        assert line["train/learning_rate"] > 0
    for line in skipped.values():
        examples = [example for epoch in line["examples"].values() for example in epoch]
        assert len(examples) == 16
        assert labels[examples[0]] < 5
    state = _newest_state(config, tmp_path)
    assert _is_finite(state)
    assert state.step == 6
    replayed = inception.replay_step(config, tmp_path, min(skipped), digits(TRAIN))
    assert not replayed["finite"]
    assert labels[replayed["example"][0]] == replayed["label"][0] < 5


def test_batches_that_cannot_be_split_are_refused_before_anything_is_written(
    tiny, digits, tmp_path
):
    config = tiny()
    config.accumulation_steps = 3
    with pytest.raises(ConfigError, match="use 15 or 18"):
        _run(config, digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_ends_with_its_named_evaluations(tiny, digits, tmp_path, monkeypatch):
    sources = {"few": digits(slice(100, 103)), "validation": digits(HELD_OUT)}
    opened = lambda dataset, split, data_dir: sources[split]  # noqa: E731
    monkeypatch.setattr("inception.data.datasets.open_source", opened)
    fields = ["evaluations.mine.split=few", "evaluations.mine.crops=12"]
    config = tiny("num_epochs=0.4", "schedule=staircase", "augmentation=inception", *fields)
    results = inception.train_and_evaluate(config, tmp_path, digits(TRAIN))
    assert results["examples"] == 20
    mine = results["evaluations"]["mine"]
    assert (mine["split"], mine["examples"]) == ("few", 3)
    assert json.loads((tmp_path / "results_mine.json").read_text()) == mine


@pytest.mark.slow
def test_a_run_whose_workdir_is_anothers_by_now_writes_nothing(tiny, digits, tmp_path):
    def check_lock():
        raise CheckpointError("taken over")

    config = tiny("num_epochs=0.4", "schedule=staircase", "augmentation=inception")
    with pytest.raises(CheckpointError, match="taken over"):
        Trainer(config, tmp_path, digits(TRAIN), digits(HELD_OUT)).run(check_lock)
    assert (processes.saved_steps(tmp_path), read_metrics(tmp_path)) == ([], [])


@pytest.mark.slow
def test_a_signal_in_the_last_evaluations_is_obeyed(tiny, digits, tmp_path, monkeypatch):
    """Each start gets one evaluation further; the last one makes all."""
    faults = {}
    sources = {"validation": digits(HELD_OUT), "few": digits(slice(100, 103))}

    def opened(dataset, split, data_dir):
        return _Faulty(sources[split], faults[split])

    monkeypatch.setattr("inception.data.datasets.open_source", opened)
    config = tiny(
        "num_epochs=0.4",
        "schedule=staircase",
        "augmentation=inception",
        "evaluations.mine.split=few",
    )
    for fault in ("validation", "few"):
        faults = dict.fromkeys(sources, lambda given: None) | {fault: _terminate}
        with pytest.raises(Interrupted, match="evaluation of step 1"):
            inception.train_and_evaluate(config, tmp_path, digits(TRAIN))
        assert processes.saved_steps(tmp_path) == [1]
        assert (tmp_path / "results.json").exists() == (fault == "few")
        assert not (tmp_path / "results_mine.json").exists()
    faults = dict.fromkeys(sources, lambda given: None)
    results = inception.train_and_evaluate(config, tmp_path, digits(TRAIN))
    assert (results["examples"], results["evaluations"]["mine"]["examples"]) == (20, 3)
    assert _evaluated_steps(tmp_path) == [1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "least"),
    [
        (["seed=0"], 0.985),
        (["seed=1"], 0.985),
        (["seed=2"], 0.985),
        (["seed=0", "dtype=bfloat16"], 0.975),
    ],
)
def test_the_quick_start_learns_the_digits(overrides, least, tmp_path):
    config = inception.load_config("configs/digits.py", overrides)
    config.data_dir = str(tmp_path / "data")
    results = inception.train_and_evaluate(config, tmp_path / "run")
    assert results["examples"] == 360
    assert results["ema"]["top1"] >= least
