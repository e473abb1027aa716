"""Programs in processes of their own, with as many CPU devices as a test asks for."""

import json
import os
import subprocess
import sys
from typing import Any


def start(
    program: str, *arguments: object, devices: int = 1, **environment: str
) -> subprocess.Popen:
    """Starts Python on a program's text; one of several processes may need an environment."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen) -> Any:
    """What the program printed last, as JSON."""
    output, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])
