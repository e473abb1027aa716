"""benchmarks/loop.py: what is reported of the times, and what it cannot measure."""

import os
import sys

import pytest

from benchmarks import loop


def test_the_report_has_both_speeds_and_the_time_that_is_lost():
    text = loop.report([(2.0, 2.1), (2.0, 2.02), (2.0, 2.3)], images=16)
    assert "alone 8.0 images/s" in text
    assert "7.6:" in text  # 16 in 2.1 s
    assert "+5.0 % time (+1.0 to +15.0 %)" in text


@pytest.mark.parametrize(
    ("flags", "error"), [([], "needs two cores"), (["--on=gpu", "--steps=0"], "at least 1")]
)
def test_what_cannot_be_measured_is_refused(flags, error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["loop", *flags])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(SystemExit):
        loop.main()
    assert error in capsys.readouterr().err
