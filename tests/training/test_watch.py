"""Means over steps, steps that are left out, spikes, and when a run ends."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from inception.training.watch import TrainingError, Watch
from inception.workdir.logbook import Logbook, read_anomalies

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
def watch(tiny, tmp_path):
    """Makes a watch; gives it steps 1, 2, ... with these metrics."""

    def make(steps: list[dict], *overrides: str) -> Watch:
        watch = Watch(tiny(*overrides), BLOCKS, Logbook(tmp_path, 0, 100, 4.0))
        for step, metrics in enumerate(steps, start=1):
            watch.add(step, metrics, BATCH)
        return watch

    return make


def test_means_leave_steps_out_that_were_left_out(watch):
    means = watch([_metrics(1), _metrics(math.nan), _metrics(3)]).look()
    assert means == {
        "loss": 2.0,
        "grad_norm": 2.0,
        "learning_rate": 0.5,
        "weight_norm": 9.0,
        "skipped_steps": 1.0,
    }


def test_the_mean_of_no_step_is_no_number_and_its_learning_rate_is_the_one_used(watch):
    means = watch([_metrics(math.inf)]).look()
    assert math.isnan(means["loss"])
    assert (means["learning_rate"], means["skipped_steps"]) == (0.5, 1)


def test_a_step_left_out_is_recorded_with_its_examples_and_blocks(watch, tmp_path, capsys):
    watch([_metrics(), _metrics(1, math.inf)]).look()
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
    for part in ("step 2: left out", "gradient norm inf", "Mixed_5b", "--mode=replay --step=2"):
        assert part in line


@pytest.mark.parametrize("spike", [_metrics(loss=6.0), _metrics(norm=11.0)])
def test_a_spike_is_recorded_once_there_is_a_median(watch, tmp_path, spike):
    early = [spike, *[_metrics()] * 19]  # too few before it
    watch([*early, _metrics(4.9, 9.9), spike], "spike_factor=5.0").look()
    (found,) = read_anomalies(tmp_path)
    assert (found["step"], found["event"]) == (22, "spike")
    assert (found["loss"], found["grad_norm"]) == (spike["loss"], spike["grad_norm"])


def test_spikes_can_be_switched_off(watch, tmp_path):
    watch([*[_metrics()] * 30, _metrics(norm=1e9)], "spike_factor=0.0").look()
    assert not read_anomalies(tmp_path)


def test_so_many_in_a_row_end_the_run_also_over_several_looks(watch):
    bad = _metrics(math.nan)
    lost = watch([bad, _metrics(), bad, bad], "max_nonfinite_steps=3")
    lost.look()
    assert lost.error(4) is None
    lost.add(5, bad, BATCH)
    lost.look()
    error = lost.error(6)
    assert isinstance(error, TrainingError)
    for part in ("steps 3 to 5", "max_nonfinite_steps=3", "loss nan", "saved as step 6"):
        assert part in str(error)


def test_a_row_that_good_steps_follow_before_anybody_looks_ends_the_run_too(watch):
    lost = watch([*[_metrics(math.nan)] * 2, _metrics()], "max_nonfinite_steps=2")
    lost.look()
    assert "steps 1 to 2" in str(lost.error(3))


def test_weights_that_are_not_finite_end_the_run_at_once(watch):
    with pytest.raises(TrainingError, match=r"step 1: the weights .*config\.learning_rate=0\.01"):
        watch([_metrics(weight_norm=math.inf)]).look()
