"""Writes docs/parity.md after the parity tests, if asked to."""

import os

import pytest

from tests.weights import parity


@pytest.fixture(scope="session", autouse=True)
def parity_report():
    """Replaces the table in the file that INCEPTION_PARITY names by this session's measurements."""
    yield
    if path := os.environ.get("INCEPTION_PARITY"):
        parity.write(path)
