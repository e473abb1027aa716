"""The benchmark's GPU part: what it refuses, compares and judges. No GPU is needed here."""

import dataclasses
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu, gpu_parts, parity
from benchmarks.cases import OURS, Case
from benchmarks.speed import Result, Spread
from inception.config import flatten
from inception.errors import UserError
from inception.ops.platforms import cores
from tests.conftest import TINY

LIMITS = {
    "platform": "gpu",
    "device": "NVIDIA H100",
    "operations": 1e15,
    "bandwidth": 3e12,
    "operations_per_image": 3.4e10,
    "bytes_per_image": 3e8,
    "by_arithmetic": 28_000.0,
    "by_traffic": 9_000.0,
    "roofline": 7_000.0,
}


def _measured(rate, ratio):
    """What a part of a mode and a batch size finds."""
    one = Spread(1.0, 1.0, 1.0)
    ours = Result(OURS, "ours", 256, Spread(rate, rate, rate), one, one, one, 1.0, 0.5, 1 << 30)
    theirs = dataclasses.replace(
        ours, contender=gpu_parts.OPPONENT, ours_over_theirs=Spread(ratio, ratio, ratio)
    )
    return {"limits": LIMITS, "results": [dataclasses.asdict(each) for each in (ours, theirs)]}


FOUND = {
    "device": LIMITS,
    "parity": {"logits": 1e-6, "gradients": 1e-5},
    "quick_start": {"ema": 0.98, "raw": 0.99},
    "train_256": _measured(3000, 0.99),
    "infer_1": _measured(3000, 1.01),
}


@pytest.fixture
def setting(tiny, tmp_path):
    fields = flatten(tiny("dtype=bfloat16"))
    return gpu_parts.Setting(fields, 10, 1, 1, 0.1, str(tmp_path / "cache"))


@pytest.fixture
def parts(monkeypatch):
    """Stands in for the parts' processes; returns which parts ran, and for how long they might."""
    ran = {}

    def run_part(name, setting, seconds):
        ran[name] = seconds
        return {"result": FOUND[name]} if name in FOUND else {"error": "status 1"}

    monkeypatch.setattr(gpu, "_run_part", run_part)
    return ran


def test_without_a_gpu_it_refuses():
    with pytest.raises(UserError, match="--mode=gpu needs a GPU, and JAX finds CPU"):
        gpu.require(LIMITS | {"platform": "cpu", "device": "CPU, 2 threads"}, "gpu")
    gpu.require(LIMITS, "gpu")


def test_the_best_draw_counts():
    rng = np.random.default_rng(0)
    arrays = {
        f"{what} {draw}": rng.normal(size=(2, 3, 5)).astype(np.float32)
        for draw in range(parity.DRAWS)
        for what in ("logits", "gradients")
    }
    other = {name: array.copy() for name, array in arrays.items()}
    assert parity.differences(other, arrays) == {"logits": 0, "gradients": 0}
    other["gradients 0"] *= 2  # a ReLU that switched
    assert parity.differences(other, arrays)["gradients"] == 0
    for draw in range(parity.DRAWS):
        other[f"gradients {draw}"] = 1.5 * arrays[f"gradients {draw}"]
        other[f"logits {draw}"] = arrays[f"logits {draw}"] + 0.1
    found = parity.differences(other, arrays)
    assert found["gradients"] == pytest.approx(0.5)
    assert found["logits"] > 0.01
    assert not any(verdict.met for verdict in gpu.judge({"parity": found}))


def test_every_part_leaves_a_line_and_targets_are_judged(parts, setting, tmp_path, capsys):
    verdicts = gpu.run(setting, tmp_path / "gpu.jsonl", 8)
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == list(gpu_parts.PARTS) == list(parts)
    assert lines[-1]["error"] == "status 1"
    assert gpu.results_of(tmp_path / "gpu.jsonl").keys() == FOUND.keys()
    assert [verdict.met for verdict in verdicts] == [True, True, False, False, True, True]
    assert "MISSED  train, batch 256, ours / timm-compile" in capsys.readouterr().out


def test_predictions_stand_beside_what_was_measured():
    plan = {"images_per_second": [2500.0, 9000.0], "peak_bytes": 3 << 29}
    assert list(gpu.predictions({**FOUND, "plan": plan})) == [
        "planned 2,500 to 9,000 images/s at batch 256: measured 3,000",
        "planned 1.50 GiB at batch 256: measured 1.00",
    ]
    assert not list(gpu.predictions(FOUND))


def test_given_again_it_runs_what_is_missing_and_leaves_it_the_time(parts, setting, tmp_path):
    output = tmp_path / "gpu.jsonl"
    gpu.run(setting, output, 8)
    shares = {name: part.share for name, part in gpu_parts.PARTS.items()}
    alone = 480 * shares["train_512"] / sum(shares.values())
    parts.clear()
    gpu.run(setting, output, 8)
    assert parts.keys() == gpu_parts.PARTS.keys() - FOUND.keys()
    assert parts["train_512"] > 3 * alone  # with the time of those before it
    assert max(parts.values()) <= 480


@pytest.mark.parametrize("difference", [0.1, None])
def test_nothing_is_measured_where_results_differ(
    parts, setting, tmp_path, monkeypatch, difference
):
    if difference is None:
        monkeypatch.delitem(FOUND, "parity")
    else:
        monkeypatch.setitem(FOUND, "parity", {"logits": difference, "gradients": 0.0})
    with pytest.raises(UserError, match="results differ from the CPU"):
        gpu.run(setting, tmp_path / "gpu.jsonl", 8)
    assert list(parts) == ["device", "parity"]


def test_a_part_that_takes_too_long_is_ended(setting, tmp_path, monkeypatch):
    """With the process that it has started, which ignores the first signal."""
    monkeypatch.setattr(gpu, "_TO_END", 0.3)
    script = f"trap '' TERM; sleep 600 & echo $! > {tmp_path / 'pid'}; wait; wait"
    popen = subprocess.Popen
    monkeypatch.setattr(
        gpu.subprocess, "Popen", lambda _, **options: popen(["bash", "-c", script], **options)
    )
    assert gpu._run_part("device", setting, 1.3) == {"error": "ended after 1 s"}
    state = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    deadline = time.monotonic() + 5
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_the_whole_is_rehearsed_on_a_cpu(tiny, tmp_path):
    """Every part, tiny; the plan is another test's, as a program for a GPU compiles for minutes.

    All batches are of two images, so that the parts share compiled programs.
    """
    fields = flatten(tiny("dtype=bfloat16"))
    setting = gpu_parts.Setting(
        *(fields, 10, cores(), 1, 0.1, str(tmp_path / "cache"), "cpu", ("flax-naive",), 1 / 1024),
        quick_start=[*TINY, "num_epochs=0.1"],
    )
    gpu.run(setting, tmp_path / "gpu.jsonl", 60)
    found = gpu.results_of(tmp_path / "gpu.jsonl")
    assert found.keys() == gpu_parts.PARTS.keys() - {"plan"}
    assert found["parity"] == {"logits": 0, "gradients": 0}
    assert found["without"].keys() == {"nothing", *gpu_parts.WITHOUT}
    assert found["profile"]["traces"]
    for name in ("train_512", "infer_1024"):
        assert [each["contender"] for each in found[name]["results"]] == [OURS, "flax-naive"]
        assert all(each["images_per_second"][0] > 0 for each in found[name]["results"])


@pytest.mark.slow
def test_parity_computes_both_heads_and_a_gradient(tiny):
    config = tiny("batch_size=2")
    found = parity.compute(Case(OURS, "train", 1, flatten(config), 10))
    assert found["logits 0"].shape == (2, 2, 10)
    assert np.isfinite(found["gradients 0"]).all()
    assert np.linalg.norm(found["gradients 0"]) > 1e-3
    assert not np.array_equal(found["logits 0"], found["logits 1"])
