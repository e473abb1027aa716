"""benchmarks/loop.py: what it reports, and what it cannot measure."""

import os

import pytest

from benchmarks import loop
from inception.errors import UserError


def test_the_report_has_both_speeds_and_the_additional_time(monkeypatch):
    text = loop.report([(2.0, 2.1), (2.0, 2.02), (2.0, 2.3)], images=16)
    assert "alone 8.0 images/s" in text
    assert "7.6:" in text  # 16 in 2.1 s
    assert "+5.0 % time (+1.0 to +15.0 %)" in text
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(UserError, match="needs two cores"):
        loop.main([])
