"""Writes docs/parity.md after the parity tests, if asked to; the file that downloads want."""

import os

import pytest

from inception.weights.cache import File
from tests.loopback import BODY, SHA256
from tests.weights import parity


@pytest.fixture(scope="session", autouse=True)
def parity_report():
    """Writes this session's measurements into the file that INCEPTION_PARITY names."""
    yield
    if path := os.environ.get("INCEPTION_PARITY"):
        parity.write(path)


@pytest.fixture
def wanted(web, tmp_path):
    """Makes the file that is wanted, from paths of the server; by default its digest is known."""

    def make(*paths: str, sha256: str = SHA256, size: int = len(BODY), **digests: str) -> File:
        urls = tuple(map(web.url, paths))
        return File(tmp_path / "cache" / "weights" / "w.bin", urls, size, sha256, **digests)

    return make
