"""The arithmetic of a step on many chips, against sums done by hand."""

import pytest

from inception.plan.chips import CHIPS, target_config
from inception.plan.scaling import all_reduce_time, step_time

V5E = CHIPS["v5e"]


def test_one_chip_sends_nothing():
    assert all_reduce_time(V5E, 1, 1e9) == 0


def test_a_message_is_sent_twice_at_most():
    """200 GB/s leave a v5e: the pod's published 51.2 TB/s over its 256 chips."""
    assert V5E.interconnect / 2 == pytest.approx(51.2e12 / 256)
    assert all_reduce_time(V5E, 2, 200e9) == pytest.approx(1, rel=1e-4)
    assert all_reduce_time(V5E, 256, 200e9) == pytest.approx(2 * 255 / 256, rel=1e-4)
    times = [all_reduce_time(V5E, chips, 60e6) for chips in (2, 4, 16, 64, 256)]
    assert times == sorted(times)
    assert times[-1] < 1e-3


def test_a_step_takes_the_longest_of_its_parts_or_twice_their_sum():
    step = step_time(V5E, 4, 128, 5.7e9, 128 * 250e6, 60e6)
    assert step.arithmetic == pytest.approx(6 * 5.7e9 * 128 / 197e12)
    assert step.traffic == pytest.approx(128 * 250e6 / 819e9)
    assert step.shortest == step.traffic
    assert step.longest == pytest.approx(2 * (step.arithmetic + step.traffic + step.interconnect))


@pytest.mark.parametrize("name", CHIPS)
def test_chips_are_as_they_are_sold(name):
    chip = CHIPS[name]
    assert 1e14 < chip.flops < 1e16
    assert 50 < chip.flops / chip.bandwidth < 1000  # operations to a byte
    assert 15e9 < chip.memory < 300e9
    assert chip.source.startswith("https://")
    if chip.gpu:
        assert f"memory_bandwidth: {chip.bandwidth:.0f}" in target_config(chip)
    else:
        with pytest.raises(ValueError, match=name):
            target_config(chip)
