"""A headless browser, driven by nothing but its command line."""

import contextlib
import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def dom(url: str) -> str:
    """The page as it is after a minute of the browser's own clock, which does not wait."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if not browser:
        pytest.skip("no browser: apt install chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,2000"]
    command = [browser, *flags, "--virtual-time-budget=60000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
