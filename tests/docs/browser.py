"""A headless Chromium, asked through its DevTools protocol for a page as a user would see it."""

import asyncio
import contextlib
import functools
import http.server
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DOM = {"expression": "document.documentElement.outerHTML"}


@contextlib.contextmanager
def _chromium() -> Iterator[str]:
    """HOST:PORT of the DevTools of a new browser; skips the test if there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        pytest.skip("no browser: apt install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,2000"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen([program, *flags], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            # Its pipe must not fill up.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield urlsplit(line.split()[-1]).netloc
            process.terminate()


def dom(url: str, *expected: str, seconds: float = 120) -> str:
    """The page's elements, as soon as they contain the expected texts, or after `seconds`."""

    async def ask(address: str) -> str:
        async with aiohttp.ClientSession() as session:
            new = await session.put(f"http://{address}/json/new?{quote(url, safe='')}")
            socket = (await new.json(content_type=None))["webSocketDebuggerUrl"]
            async with session.ws_connect(socket, max_msg_size=0) as page:
                end, found = time.monotonic() + seconds, ""
                while time.monotonic() < end and not all(text in found for text in expected):
                    await asyncio.sleep(0.5)
                    await page.send_json({"id": 1, "method": "Runtime.evaluate", "params": _DOM})
                    answer = await page.receive_json()
                    found = answer.get("result", {}).get("result", {}).get("value", "")
                return found

    with _chromium() as address:
        return asyncio.run(ask(address))


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
