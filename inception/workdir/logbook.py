"""What a run tells while it goes on: a progress line, metrics.jsonl and TensorBoard curves.

Steps out of the ordinary stand in anomalies.jsonl. All files may be in a bucket. Buckets cannot
append, and TensorFlow's event writer knows no buckets but Google's own: there files of lines are
written anew each time, and the event file is written to the local disk and copied.
"""

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from etils import epath

from inception.distributed.sharding import is_main_process
from inception.workdir.files import as_json, is_local, write_text

METRICS, ANOMALIES = "metrics.jsonl", "anomalies.jsonl"


class MetricLogger:
    """Writes the metrics of a run. Use as a context manager; other processes write nothing.

    Lines behind `first_step` are dropped from the files: a run that continues from a checkpoint
    writes them again.

    Args:
      workdir: of the run.
      first_step: where the run begins or continues.
      num_steps: where it ends.
      steps_per_epoch: for the epoch shown.
    """

    def __init__(
        self, workdir: epath.PathLike, first_step: int, num_steps: int, steps_per_epoch: float
    ):
        self._num_steps, self._steps_per_epoch = num_steps, steps_per_epoch
        self._workdir = epath.Path(workdir)
        self._writer: _Events | None = None
        if is_main_process():
            self._metrics = _Lines(self._workdir / METRICS, first_step)
            self._anomalies = _Lines(self._workdir / ANOMALIES, first_step)
        self.restart_clock(first_step)

    def __enter__(self) -> "MetricLogger":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer:
            with _log_write_errors(self._workdir):
                self._writer.close()

    def restart_clock(self, step: int) -> None:
        """Measures speed from `step` and now: evaluation and saving do not count."""
        self._clock = step, time.perf_counter()

    def train(self, step: int, batch_size: int, metrics: dict[str, float]) -> None:
        """Logs the metrics of the steps since the clock was restarted, and restarts it."""
        since, start = self._clock
        seconds_per_step = (time.perf_counter() - start) / max(1, step - since)
        speed = batch_size / seconds_per_step
        left = _duration((self._num_steps - step) * seconds_per_step)
        epoch = step / self._steps_per_epoch
        log(
            f"step {step}/{self._num_steps}  epoch {epoch:.2f}  loss {metrics['loss']:.4f}  "
            f"top-1 {metrics['top1']:.2%}  lr {metrics['learning_rate']:.4g}  "
            f"{speed:,.1f} images/s  {left} left"
        )
        metrics = {f"train/{name}": value for name, value in metrics.items()}
        self._write(step, {"epoch": epoch, **metrics, "train/images_per_second": speed})
        self.restart_clock(step)

    def evaluation(self, step: int, results: dict) -> None:
        """Logs what `evaluate.Evaluator` returned at `step`."""
        log(f"step {step}/{self._num_steps}  {summary(results)}")
        scalars = {
            f"eval/{weights}_{name}": value
            for weights in ("ema", "raw")
            for name, value in results[weights].items()
            if isinstance(value, int | float)
        }
        self._write(step, scalars)

    def anomaly(self, step: int, what: str, record: dict) -> None:
        """Logs a step out of the ordinary: what it is, and what is known of it for the file."""
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
            self._writer = self._writer or _Events(self._workdir)  # takes seconds, once
            self._writer.write(step, scalars)


@contextlib.contextmanager
def _log_write_errors(workdir: epath.Path) -> Iterator[None]:
    """Around what a run can do without: where it fails, for want of room, that is told."""
    try:
        yield
    except Exception as error:  # TensorFlow and buckets have their own kinds
        log(f"warning: metrics cannot be written in {workdir}: {error}")


def log(line: str) -> None:
    """Prints a line for the person who runs the program, once, whatever the number of processes."""
    if is_main_process():
        print(line, flush=True)


def read_metrics(workdir: epath.PathLike) -> list[dict]:
    """The lines of a run's metrics.jsonl, without what a crash has cut off or is something else."""
    return _read(epath.Path(workdir) / METRICS)


def read_anomalies(workdir: epath.PathLike) -> list[dict]:
    """The lines of a run's anomalies.jsonl, see watch.py."""
    return _read(epath.Path(workdir) / ANOMALIES)


def summary(results: dict) -> str:
    """One line on an evaluation's results."""

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


class _Lines:
    """A file of a line of JSON for each of some steps, those up to `last` kept."""

    def __init__(self, file: epath.Path, last: int):
        self._file = file
        self._lines = [as_json(line) + "\n" for line in _read(file) if line["step"] <= last]
        self._is_whole = True  # False after a write that has failed, maybe in the middle of a line
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


class _Events:
    """TensorBoard's event file in a workdir, by clu's writer."""

    def __init__(self, workdir: epath.Path):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it announces them
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        import tensorflow as tf  # which clu's writer imports, too
        from clu.metric_writers import SummaryWriter

        tf.config.set_visible_devices([], "GPU")  # or it takes the memory that JAX needs
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
