"""Means over steps, skipped steps, spikes, and when a run ends."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from inception.training.watch import StepMonitor, TrainingError
from inception.workdir.logbook import MetricLogger, read_anomalies

BLOCKS = ["Logits", "Mixed_5b"]
BATCH = {"epoch": np.array([0, 0, 1]), "example": np.array([7, 3, 5]), "label": np.zeros(3)}


def _metrics(loss: float = 1.0, norm: float = 2.0, weight_norm: float = 9.0) -> dict:
    return {
        "loss": jnp.float32(loss),
        "grad_norm": jnp.float32(norm),
        "learning_rate": jnp.float32(0.5),
        "weight_norm": jnp.float32(weight_norm),
        "finite": jnp.isfinite(jnp.float32(loss + norm)),
        "block_grad_norms": jnp.array([0.5, norm], jnp.float32),
    }


@pytest.fixture
def monitor(tiny, tmp_path):
    """Makes a monitor; gives it steps 1, 2, ... with these metrics."""

    def make(steps: list[dict], *overrides: str) -> StepMonitor:
        monitor = StepMonitor(tiny(*overrides), BLOCKS, MetricLogger(tmp_path, 0, 100, 4.0))
        for step, metrics in enumerate(steps, start=1):
            monitor.add(step, metrics, BATCH)
        return monitor

    return make


def test_means_leave_steps_out_that_were_left_out(monitor):
    means = monitor([_metrics(1), _metrics(math.nan), _metrics(3)]).collect()
    assert means == {
        "loss": 2.0,
        "grad_norm": 2.0,
        "learning_rate": 0.5,
        "weight_norm": 9.0,
        "skipped_steps": 1.0,
    }


def test_the_mean_of_no_step_is_no_number_and_its_learning_rate_is_the_one_used(monitor):
    means = monitor([_metrics(math.inf)]).collect()
    assert math.isnan(means["loss"])
    assert (means["learning_rate"], means["skipped_steps"]) == (0.5, 1)


def test_a_step_left_out_is_recorded_with_its_examples_and_blocks(monitor, tmp_path, capsys):
    monitor([_metrics(), _metrics(1, math.inf)]).collect()
    assert read_anomalies(tmp_path) == [
        {
            "step": 2,
            "event": "skipped",
            "loss": 1.0,
            "grad_norm": None,
            "learning_rate": 0.5,
            "block_grad_norms": {"Logits": 0.5, "Mixed_5b": None},
            "examples": {"0": [7, 3], "1": [5]},
        }
    ]
    line = capsys.readouterr().out
    for part in ("step 2: skipped", "gradient norm inf", "Mixed_5b", "--mode=replay --step=2"):
        assert part in line


GOOD_RUN = np.loadtxt(Path(__file__).parent / "good_run.txt")  # the quick start's, step by step


@pytest.mark.parametrize(
    ("spike", "said"),
    [
        (_metrics(loss=6.0), "loss 6 is 6.0x its recent median 1"),
        (_metrics(norm=50.0), "grad_norm 50 is 25.0x the 95th percentile 2 of the last 21 steps"),
    ],
)
def test_a_spike_is_recorded_once_there_are_steps_to_compare(
    monitor, tmp_path, capsys, spike, said
):
    early = [spike | {"grad_norm": jnp.float32(2)}, *[_metrics()] * 19]  # too few before it
    monitor([*early, _metrics(4.9, 9.9), spike], "spike_factor=5.0").collect()
    (found,) = read_anomalies(tmp_path)
    assert (found["step"], found["event"]) == (22, "spike")
    assert (found["loss"], found["grad_norm"]) == (spike["loss"], spike["grad_norm"])
    assert said in capsys.readouterr().out


def test_what_clipping_leaves_alone_and_small_losses_are_no_spikes(monitor, tmp_path):
    quiet = [_metrics(0.01, 0.1)] * 30
    monitor([*quiet, _metrics(0.9, 1.9)], "spike_factor=5.0", "clip_norm=2.0").collect()
    assert not read_anomalies(tmp_path)


def test_a_good_run_has_no_spike_and_a_bad_batch_in_it_is_found(monitor, tmp_path):
    steps = [_metrics(loss, norm) for loss, norm in GOOD_RUN]
    monitor(steps, "spike_factor=5.0", "clip_norm=2.0").collect()
    assert not read_anomalies(tmp_path)
    for place in (300, 500, 700, 890):
        bad = [*steps[:place], _metrics(9.0, 2.0), *steps[place + 1 :]]  # the loss alone
        monitor(bad, "spike_factor=5.0", "clip_norm=2.0").collect()
        assert [found["step"] for found in read_anomalies(tmp_path)][-1:] == [place + 1]


def test_several_bad_gradients_are_found_although_hard_images_came_before(monitor, tmp_path):
    steps = [_metrics(loss, norm) for loss, norm in GOOD_RUN]
    places = [700, 710, 720]  # after the good run's gradient of 11 in step 601
    for place in places:
        steps[place] = _metrics(0.8, 40.0)
    monitor(steps, "spike_factor=5.0", "clip_norm=2.0").collect()
    assert [found["step"] - 1 for found in read_anomalies(tmp_path)] == places


def test_spikes_can_be_switched_off(monitor, tmp_path):
    monitor([*[_metrics()] * 30, _metrics(norm=1e9)], "spike_factor=0.0").collect()
    assert not read_anomalies(tmp_path)


def test_so_many_in_a_row_end_the_run_also_over_several_looks(monitor):
    bad = _metrics(math.nan)
    lost = monitor([bad, _metrics(), bad, bad], "max_nonfinite_steps=3")
    lost.collect()
    assert lost.error(4) is None
    lost.add(5, bad, BATCH)
    lost.collect()
    error = lost.error(6)
    assert isinstance(error, TrainingError)
    for part in ("steps 3 to 5", "max_nonfinite_steps=3", "loss nan", "saved as step 6"):
        assert part in str(error)


def test_a_row_that_good_steps_follow_before_anybody_looks_ends_the_run_too(monitor):
    lost = monitor([*[_metrics(math.nan)] * 2, _metrics()], "max_nonfinite_steps=2")
    lost.collect()
    assert "steps 1 to 2" in str(lost.error(3))


def test_weights_that_are_not_finite_end_the_run_at_once(monitor):
    with pytest.raises(TrainingError, match=r"step 1: the weights .*config\.learning_rate=0\.01"):
        monitor([_metrics(weight_norm=math.inf)]).collect()
