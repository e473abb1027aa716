"""A trace of some steps, config.profile_steps, in WORKDIR/profile.

https://ui.perfetto.dev opens perfetto_trace.json.gz in the trace's folder; TensorBoard shows the
workdir's traces when its plugin is installed: pip install xprof.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
from etils import epath

from inception.distributed.sharding import is_main_process
from inception.workdir.files import is_local
from inception.workdir.logbook import log


class Profiler:
    """Traces the steps FIRST:LAST, both included. Use as a context manager around all steps.

    Args:
      steps: "10:13", or empty for none.
      workdir: of the run. Of several processes the first alone traces.
    """

    def __init__(self, steps: str, workdir: epath.PathLike):
        first, _, last = steps.partition(":") if is_main_process() else ("", "", "")
        self._steps = range(int(first), int(last) + 1) if first else range(0)
        self._folder = epath.Path(workdir) / "profile"
        self._running: contextlib.ExitStack | None = None

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """Starts the trace at the first of its steps that comes."""
        if step not in self._steps or self._running:
            return
        self._running = contextlib.ExitStack()
        folder = os.fspath(self._folder)
        if not is_local(folder):  # what writes traces knows no buckets
            folder = self._running.enter_context(tempfile.TemporaryDirectory())
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # Python's calls would be most of it
        jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)
        self._running.callback(self._write, Path(folder))

    def after(self, step: int, metrics: Any) -> None:
        """Ends the trace when its last step, whose metrics these are, is done."""
        if self._steps and step == self._steps[-1]:
            jax.block_until_ready(metrics)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running.close()
            self._running = None

    def _write(self, folder: Path) -> None:
        jax.profiler.stop_trace()
        if not is_local(self._folder):
            for file in filter(Path.is_file, folder.rglob("*")):
                copy = self._folder / file.relative_to(folder).as_posix()
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
        log(f"traced into {self._folder}; ui.perfetto.dev opens its perfetto_trace.json.gz")
