"""Several processes that want one file: one downloads, the others wait."""

import signal
import socket
import subprocess
import sys
import threading
import time

from inception.weights.cache import File
from tests.loopback import BODY, CUT, KEPT, send, whole

PROGRAM = """
import sys
from pathlib import Path
from inception.weights.cache import File
from inception.weights.download import fetch
path, url, size, sha256 = sys.argv[1:]
print("ready", flush=True)
input()
fetch(File(Path(path), (url,), int(size), sha256))
"""


def _started(file: File) -> subprocess.Popen:
    words = (str(file.path), file.urls[0], str(file.size), file.sha256)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_many_processes_one_downloads_and_the_next_follows_a_killed_one(web, wanted):
    file, held = wanted("/w.bin"), threading.Event()

    def slow(request, before):
        if before == 0:
            send(request, 200, BODY[:CUT], len(BODY))
            request.wfile.flush()
            held.wait(120)
            request.close_connection = True
        else:
            whole()(request, before)

    web.routes["/w.bin"] = slow
    processes = [_started(file) for _ in range(3)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
        first, *others = processes
        first.stdin.write("\n")
        first.stdin.flush()
        while not web.requests:
            time.sleep(0.01)
        for process in others:
            process.stdin.write("\n")
            process.stdin.flush()
        assert "waiting for another process" in others[0].stderr.readline()
        part = file.path.with_name(f"w.bin.{socket.gethostname()}.part")
        while not part.exists() or part.stat().st_size < KEPT:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        assert [process.wait(120) for process in others] == [0, 0]
    finally:
        held.set()
        for process in processes:
            process.kill()
            process.communicate()
    assert file.path.read_bytes() == BODY
    assert len(web.requests) == 2
    assert web.ranges()[1].startswith("bytes=")
