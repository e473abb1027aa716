"""The progress line, metrics.jsonl and TensorBoard's curves."""

import contextlib
import fcntl
import io
import json
import logging
import math
import os
import pty
import resource
import struct
import sys
import termios
import time

import pytest

from inception.workdir import logbook
from inception.workdir.logbook import MetricLogger, log, summary

METRICS = {"loss": 1.5, "top1": 0.25, "learning_rate": 0.01, "grad_norm": 3.0}
RESULTS = {
    "step": 20,
    "split": "validation",
    "examples": 360,
    "excluded": 0,
    "ema": {"top1": 0.5, "top5": 0.9, "loss": 1.0, "not_finite": 0, "per_class": [0.1]},
    "raw": {"top1": 0.4, "top5": 0.8, "loss": 1.2, "not_finite": 0, "per_class": [0.1]},
}


def _lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_progress_line_has_what_a_person_wants(tmp_path, capsys):
    with MetricLogger(tmp_path, 0, 100, steps_per_epoch=8.0) as log:
        log.train(20, 32, METRICS)
    line = capsys.readouterr().out
    for part in ("step 20/100", "epoch 2.50", "loss 1.5", "top-1 25.00%", "lr 0.01"):
        assert part in line
    assert "images/s" in line
    assert "left" in line


@contextlib.contextmanager
def _terminal(columns: int = 60):
    """Standard output is a terminal; yields a function that reads what it got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as output, os.fdopen(ours, "rb", 0) as reader:
        os.set_blocking(ours, False)

        def read() -> str:
            output.flush()
            received = io.BytesIO()
            with contextlib.suppress(BlockingIOError):
                while part := reader.read(4096):
                    received.write(part)
            return received.getvalue().decode()

        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield read


def _screen(received: str) -> list[str]:
    """The rows that a terminal shows."""
    rows = []
    for line in received.split("\n"):
        row = ""
        for text in line.split("\r"):
            row = text + row[len(text) :]
        rows.append(row.rstrip())
    return rows


def test_on_a_terminal_progress_is_one_line_that_is_overwritten(tmp_path, monkeypatch):
    with _terminal() as terminal:
        monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
        with MetricLogger(tmp_path, 0, 100, 8.0) as metrics:
            log("before")
            metrics.train(10, 32, METRICS)
            metrics.train(20, 32, METRICS)
            received = terminal()
            before, progress = _screen(received)
            assert before == "before"
            assert progress.startswith("step 20/100  epoch 2.50")
            assert len(progress) <= 60
            metrics.evaluation(20, RESULTS)
            logging.getLogger().warning("careful")
            metrics.train(30, 32, METRICS)
            received += terminal()
            _, evaluation, warning, progress = _screen(received)
            assert evaluation == f"step 20/100  {summary(RESULTS)}"
            assert warning == "careful"
            assert progress.startswith("step 30/100")
        log("after")
        assert _screen(received + terminal())[3:] == ["after", ""]


def test_on_a_terminal_of_unknown_width_progress_is_lines(tmp_path):
    with _terminal(columns=0) as terminal, MetricLogger(tmp_path, 0, 100, 8.0) as metrics:
        metrics.train(10, 32, METRICS)
        assert terminal().startswith("step 10/100  epoch 1.25")


def test_speed_is_measured_between_completed_steps(tmp_path, monkeypatch):
    """Every step takes 2 s; the first report comes when the second step is complete, too."""
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    with MetricLogger(tmp_path, 0, 100, 8.0) as metrics:
        now += 4
        metrics.train(1, 32, METRICS, completed=2)
        now += 1e-3
        metrics.train(2, 32, METRICS)  # at once, before it is saved
        now += 60  # evaluated
        metrics.restart_clock(2)
        now += 2
        metrics.train(3, 32, METRICS)
    speeds = [line["train/images_per_second"] for line in logbook.read_metrics(tmp_path)]
    assert speeds == pytest.approx([16.0] * 3)


def test_metrics_can_be_read_without_tensorflow(tmp_path):
    with MetricLogger(tmp_path, 0, 100, steps_per_epoch=8.0) as log:
        log.train(20, 32, METRICS)
        log.evaluation(20, RESULTS)
    train, evaluation = _lines(tmp_path)
    assert train["step"] == 20
    assert train["train/loss"] == 1.5
    assert train["train/images_per_second"] > 0
    assert evaluation["eval/ema_top1"] == 0.5
    assert evaluation["eval/raw_loss"] == 1.2
    assert evaluation["eval/ema_not_finite"] == 0
    assert not any("per_class" in name for name in evaluation)


def test_continuing_drops_what_will_be_written_again(tmp_path):
    with MetricLogger(tmp_path, 0, 100, 8.0) as log:
        for step in (10, 20, 30):
            log.train(step, 32, METRICS)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"step": 4')  # a line of something else, one cut off by a crash
    with MetricLogger(tmp_path, 20, 100, 8.0) as log:
        log.train(30, 32, METRICS)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30]


def test_what_is_not_finite_is_null_for_json_knows_no_nan(tmp_path):
    with MetricLogger(tmp_path, 0, 100, 8.0) as log:
        log.evaluation(20, RESULTS | {"ema": RESULTS["ema"] | {"loss": math.nan}})
    assert _lines(tmp_path)[0]["eval/ema_loss"] is None


def test_tensorboard_reads_the_curves(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is the oracle"
    )
    with MetricLogger(tmp_path, 0, 100, 8.0) as log:
        log.train(20, 32, METRICS)
        log.evaluation(20, RESULTS)
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    tensors = events.Tags()["tensors"]
    assert {"train/loss", "train/learning_rate", "eval/ema_top1", "eval/raw_top1"} <= set(tensors)
    assert events.Tensors("train/loss")[0].step == 20


def test_the_summary_names_both_weights():
    assert "top-1 50.00%" in summary(RESULTS)
    assert "top-1 40.00%" in summary(RESULTS)
    assert "360 images" in summary(RESULTS)
    assert "not finite" not in summary(RESULTS)
    broken = RESULTS | {"raw": RESULTS["raw"] | {"not_finite": 1234}}
    assert "1,234 images have logits that are not finite" in summary(broken)


def test_a_full_disk_loses_no_line_and_no_run(tmp_path, capsys):
    """As on a full disk: no file may grow beyond 500 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricLogger(tmp_path, 0, 100, 8.0) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            for step in (10, 20, 30, 40):
                log.train(step, 32, METRICS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "metrics cannot be written" in capsys.readouterr().out
        log.train(50, 32, METRICS)
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30, 40, 50]
