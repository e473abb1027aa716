"""A trace of some steps, config.profile_steps, in WORKDIR/profile.

https://ui.perfetto.dev opens perfetto_trace.json.gz in the trace's folder. TensorBoard shows the
traces of a workdir if its plugin is installed: pip install xprof.
"""

import contextlib
import os
import tempfile
from typing import Any

import fsspec
import jax
from etils import epath

from inception.data.paths import is_local
from inception.distributed.sharding import is_main_process
from inception.workdir.logbook import log


class Profiler:
    """Traces the steps FIRST:LAST, both included. Use as a context manager around all steps.

    Args:
      steps: FIRST:LAST, such as "10:13"; empty for no trace.
      workdir: Workdir of the run. Of several processes only process 0 traces.
    """

    def __init__(self, steps: str, workdir: epath.PathLike):
        first, _, last = steps.partition(":") if is_main_process() else ("", "", "")
        self._steps = range(int(first), int(last) + 1) if first else range(0)
        self._folder = os.fspath(epath.Path(workdir) / "profile")
        self._running: contextlib.ExitStack | None = None

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """Starts the trace, if `step` is to be traced and none is running."""
        if step not in self._steps or self._running:
            return
        self._running = contextlib.ExitStack()
        folder = self._folder
        if not is_local(folder):  # JAX writes traces to disks only
            folder = self._running.enter_context(tempfile.TemporaryDirectory())
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # Python's calls would be most of it
        jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)
        self._running.callback(self._write, folder)

    def after(self, step: int, metrics: Any) -> None:
        """Ends the trace after its last step, once that step's metrics have been computed."""
        if self._steps and step == self._steps[-1]:
            jax.block_until_ready(metrics)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running.close()
            self._running = None

    def _write(self, folder: str) -> None:
        jax.profiler.stop_trace()
        if not is_local(self._folder):
            files, path = fsspec.url_to_fs(self._folder)
            files.put(f"{folder}/", f"{path}/", recursive=True)
        log(f"traced into {self._folder}; ui.perfetto.dev opens its perfetto_trace.json.gz")
