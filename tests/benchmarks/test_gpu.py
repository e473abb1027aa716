"""The benchmark's GPU part: what it refuses, compares and judges. No GPU is needed here."""

import dataclasses

import numpy as np
import pytest

from benchmarks import gpu, parity, speed
from benchmarks.cases import OURS, Case
from benchmarks.speed import Result, Spread
from inception.config import flatten
from inception.errors import UserError

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


def _results(rate, ratio):
    one = Spread(1.0, 1.0, 1.0)
    ours = Result(OURS, "ours", 256, Spread(rate, rate, rate), one, one, one, 1.0, 0.5, 1 << 30)
    theirs = dataclasses.replace(
        ours, contender=gpu.OPPONENT, ours_over_theirs=Spread(ratio, ratio, ratio)
    )
    return [ours, theirs]


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
    assert not any(verdict.met for verdict in gpu.judge_parity(found))


def test_everything_is_measured_and_judged(monkeypatch, tiny, tmp_path, capsys):
    case = Case(OURS, "train", 1, flatten(tiny("dtype=bfloat16")), 10)
    asked = []

    def cases_of(mode, batch):
        asked.append((mode, batch))
        fields = {**case.fields, "batch_size": batch}
        ours = dataclasses.replace(case, mode=mode, fields=fields)
        return [ours, dataclasses.replace(ours, contender=gpu.OPPONENT)]

    def compare(case, platform, cache):
        assert (case.dtype, case.batch, platform) == ("float32", 2, "gpu")
        return {"logits": 1e-6, "gradients": 1e-5}

    monkeypatch.setattr(speed, "limits", lambda case, cache: LIMITS)
    monkeypatch.setattr(speed, "measure", lambda *args: _results(3000, 0.99))
    monkeypatch.setattr(parity, "compare", compare)
    *_, last = gpu.run(cases_of, 1, 1.0, tmp_path, "gpu")
    assert asked[2:] == [("train", 256), *(("infer", batch) for batch in gpu.INFER_BATCHES)]
    met = [verdict["met"] for verdict in last["verdicts"]]
    assert met == [True, True, False, True, *[False] * len(gpu.INFER_BATCHES)]
    assert "MISSED  infer, batch 1024" in capsys.readouterr().out

    monkeypatch.setattr(parity, "compare", lambda *args: {"logits": 0.1, "gradients": 0.0})
    with pytest.raises(UserError, match="differ from the CPU"):
        gpu.run(cases_of, 1, 1.0, tmp_path, "gpu")


@pytest.mark.slow
def test_parity_computes_both_heads_and_a_gradient(tiny):
    config = tiny("batch_size=2")
    found = parity.compute(Case(OURS, "train", 1, flatten(config), 10))
    assert found["logits 0"].shape == (2, 2, 10)
    assert np.isfinite(found["gradients 0"]).all()
    assert np.linalg.norm(found["gradients 0"]) > 1e-3
    assert not np.array_equal(found["logits 0"], found["logits 1"])
