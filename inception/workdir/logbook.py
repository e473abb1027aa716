"""What a run reports: lines on the screen, metrics.jsonl, anomalies.jsonl, TensorBoard curves.

All files may be in a bucket. A file in a bucket cannot be appended to, so there files of lines are
rewritten each time, and the event file is written to the local disk and copied.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from etils import epath
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from inception import runtime
from inception.data.paths import is_local
from inception.distributed.sharding import is_main_process
from inception.workdir.files import as_json, write_text

METRICS, ANOMALIES = "metrics.jsonl", "anomalies.jsonl"


class MetricLogger:
    """Reports the metrics of a run, from process 0. Use as a context manager.

    Progress is a line that is overwritten on a terminal, and a new line each time in a log. What
    the files contain of steps after `first_step` is dropped, since the run writes it again.

    Args:
      workdir: Folder of the run.
      first_step: Step that the run starts or continues from.
      num_steps: Last step of the run.
      steps_per_epoch: Number of steps per epoch.
    """

    def __init__(
        self, workdir: epath.PathLike, first_step: int, num_steps: int, steps_per_epoch: float
    ):
        self._num_steps, self._steps_per_epoch = num_steps, steps_per_epoch
        self._workdir = epath.Path(workdir)
        self._events: _EventFile | None = None
        self._bar: tqdm | None = None
        self._on_exit = contextlib.ExitStack()
        if is_main_process():
            self._metrics = _JsonlFile(self._workdir / METRICS, first_step)
            self._anomalies = _JsonlFile(self._workdir / ANOMALIES, first_step)
        self._seconds_per_step = 0.0
        self.restart_clock(first_step)

    def __enter__(self) -> "MetricLogger":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on_exit.close()
        if self._events:
            with _log_write_errors(self._workdir):
                self._events.close()

    def restart_clock(self, step: int) -> None:
        """Measures speed from now on, when `step` is complete: saving it does not count."""
        self._clock = step, time.perf_counter()

    def train(
        self, step: int, batch_size: int, metrics: dict[str, float], completed: int | None = None
    ) -> None:
        """Reports training up to `step`.

        Args:
          step: Step to report.
          batch_size: Number of images per step.
          metrics: Metrics by name, of the steps since the last report.
          completed: Last step that is complete, to measure the speed by; None for `step`.
        """
        seconds_per_step = self._measure(step if completed is None else completed)
        speed = batch_size / seconds_per_step
        left = _duration((self._num_steps - step) * seconds_per_step)
        epoch = step / self._steps_per_epoch
        line = (
            f"step {step}/{self._num_steps}  epoch {epoch:.2f}  loss {metrics['loss']:.4f}  "
            f"top-1 {metrics['top1']:.2%}  {speed:,.1f} images/s  {left} left  "
            f"lr {metrics['learning_rate']:.4g}"
        )
        self._show_progress(step, line)
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        self._write(step, {"epoch": epoch, **metrics, "train/images_per_second": speed})

    def _measure(self, completed: int) -> float:
        """Seconds per step since the last call; those of the last call if no step was completed."""
        since, start = self._clock
        if completed > since or not self._seconds_per_step:
            self._seconds_per_step = (time.perf_counter() - start) / max(1, completed - since)
            self.restart_clock(completed)
        return self._seconds_per_step

    def _show_progress(self, step: int, line: str) -> None:
        if not is_main_process() or not _is_terminal():
            log(line)
            return
        if not self._bar:
            self._bar = tqdm(
                desc=line,
                total=self._num_steps,
                bar_format="{desc}  {bar}",
                dynamic_ncols=True,
                leave=False,
                file=sys.stdout,
            )
            self._on_exit.enter_context(self._bar)
            self._on_exit.enter_context(logging_redirect_tqdm())
        self._bar.n = step
        self._bar.set_description_str(line)

    def evaluation(self, step: int, results: dict) -> None:
        """Reports what `evaluator.Evaluator` returned at `step`."""
        log(f"step {step}/{self._num_steps}  {summary(results)}")
        scalars = {
            f"eval/{weights}_{name}": value
            for weights in ("ema", "raw")
            for name, value in results[weights].items()
            if isinstance(value, int | float)
        }
        self._write(step, scalars)

    def anomaly(self, step: int, what: str, record: dict) -> None:
        """Reports an unusual step: what is unusual, and the record for anomalies.jsonl."""
        log(f"step {step}: {what}; --mode=replay --step={step} shows its images")
        if is_main_process():
            with _log_write_errors(self._workdir):
                self._anomalies.add({"step": step, **record})

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        if not is_main_process():
            return
        with _log_write_errors(self._workdir):
            self._metrics.add({"step": step, **scalars})
        with _log_write_errors(self._workdir):
            self._events = self._events or _EventFile(self._workdir)  # takes seconds, once
            self._events.write(step, scalars)


def _is_terminal() -> bool:
    """Whether standard output is a terminal of a known width, without which tqdm draws nothing."""
    with contextlib.suppress(OSError, ValueError):  # of a stream without a file
        return sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns > 0
    return False


@contextlib.contextmanager
def _log_write_errors(workdir: epath.Path) -> Iterator[None]:
    """Context of writes that a run can do without, such as on a full disk: warns of errors."""
    try:
        yield
    except Exception as error:  # TensorFlow and buckets raise errors of their own
        log(f"warning: metrics cannot be written in {workdir}: {error}")


def log(line: str) -> None:
    """Prints a line, from process 0, above the line of progress if there is one."""
    if is_main_process():
        with tqdm.external_write_mode():
            print(line, flush=True)


def read_metrics(workdir: epath.PathLike) -> list[dict]:
    """The lines of a run's metrics.jsonl; a line that a crash has cut off is left out."""
    return _read(epath.Path(workdir) / METRICS)


def read_anomalies(workdir: epath.PathLike) -> list[dict]:
    """The lines of a run's anomalies.jsonl; see watch.py."""
    return _read(epath.Path(workdir) / ANOMALIES)


def summary(results: dict) -> str:
    """The results of an evaluation in one line."""

    def text(of: dict) -> str:
        return f"top-1 {of['top1']:.2%}, top-5 {of['top5']:.2%}, loss {of['loss']:.4f}"

    ema, raw = results["ema"], results["raw"]
    both = text(ema) if raw == ema else f"{text(ema)} (EMA); {text(raw)} (raw)"
    excluded = f", {results['excluded']:,} left out" if results["excluded"] else ""
    lost = max(ema["not_finite"], raw["not_finite"])
    warning = f"; WARNING: {lost:,} images have logits that are not finite" if lost else ""
    return f"{results['split']} ({results['examples']:,} images{excluded}): {both}{warning}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _read(file: epath.Path) -> list[dict]:
    lines = []
    for text in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


class _JsonlFile:
    """A file with a line of JSON per step; lines of steps after `last` are dropped."""

    def __init__(self, file: epath.Path, last: int):
        self._file = file
        self._lines = [as_json(line) + "\n" for line in _read(file) if line["step"] <= last]
        self._is_whole = True  # False after a failed write, perhaps in the middle of a line
        if file.exists():
            write_text(file, "".join(self._lines))

    def add(self, line: dict) -> None:
        self._lines.append(as_json(line) + "\n")
        append, self._is_whole = self._is_whole and is_local(self._file), False
        if append:
            with self._file.open("a") as file:
                file.write(self._lines[-1])
        else:
            write_text(self._file, "".join(self._lines))
        self._is_whole = True


class _EventFile:
    """TensorBoard's event file in a workdir, by clu's writer."""

    def __init__(self, workdir: epath.Path):
        from clu.metric_writers import SummaryWriter  # imports TensorFlow

        runtime.hide_gpus_from_tensorflow()
        self._workdir = workdir
        self._local = None if is_local(workdir) else tempfile.TemporaryDirectory()
        self._writer = SummaryWriter(self._local.name if self._local else os.fspath(workdir))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        self._writer.write_scalars(step, scalars)
        if self._local:
            self._writer.flush()
            for file in Path(self._local.name).iterdir():
                (self._workdir / file.name).write_bytes(file.read_bytes())

    def close(self) -> None:
        self._writer.close()
        if self._local:
            self._local.cleanup()
