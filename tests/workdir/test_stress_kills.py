"""A few of the kills that tests/stress/kills.py deals out by the hundred."""

import random

import pytest

from tests.stress import kills


@pytest.mark.slow
def test_a_killed_run_goes_on_by_itself_to_the_same_end(tmp_path):
    report = kills.stress(tmp_path, rounds=2, chance=random.Random(1))
    assert not report.wrong, report.text()
