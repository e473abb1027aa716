"""Programs in processes of their own, with as many CPU devices as a test asks for."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def start(
    program: str, *arguments: object, devices: int = 1, stderr: bool = False, **environment: str
) -> subprocess.Popen:
    """Starts Python on a program's text; `stderr` adds what it reports to its stdout."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return _start(command, devices, environment, stderr)


def start_main(
    count: int, *arguments: object, own: dict[int, list[str]] | None = None, devices: int = 1
) -> list[subprocess.Popen]:
    """Starts main.py in `count` processes that run together; `own` adds arguments to single ones.

    What they print, errors too, is their stdout.
    """
    flags = ["--coordinator", free_address(), "--num_processes", str(count)]
    started = []
    for number in range(count):
        command = [sys.executable, "main.py", *map(str, arguments), *(own or {}).get(number, [])]
        if count > 1:
            command += [*flags, "--process_id", str(number)]
        started.append(_start(command, devices, {}, stderr=True))
    return started


def start_together(
    count: int, program: str, *arguments: object, devices: int = 1, stderr: bool = False
) -> list[subprocess.Popen]:
    """Starts Python on a program's text `count` times; the program calls `processes.connect`."""
    together = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": str(count)}
    return [
        start(
            *(program, *arguments),
            devices=devices,
            stderr=stderr,
            **together,
            JAX_PROCESS_ID=str(number),
        )
        for number in range(count)
    ]


def free_address() -> str:
    """HOST:PORT where nobody listens."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def result(process: subprocess.Popen) -> Any:
    """What the program printed last, as JSON."""
    output, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


def ends(started: list[subprocess.Popen], within: float) -> list[tuple[int, str]]:
    """The exit status and the output of every process; kills those that take longer."""
    try:
        outputs = [process.communicate(timeout=within)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, outputs, strict=True)]


def saved_steps(workdir: Path) -> list[int]:
    """The whole checkpoints of a run."""
    names = (path.name for path in (workdir / "checkpoints").iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


def _start(
    command: list[str], devices: int, environment: dict[str, str], stderr: bool
) -> subprocess.Popen:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, **environment}
    errors = subprocess.STDOUT if stderr else None
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
    )
