"""python -m benchmarks: its contenders, rounds, limits, tables and refusals."""

import dataclasses
import importlib.util
import json
import os
import time

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import interleave, limits, starts
from benchmarks.cases import OURS, Case, check
from benchmarks.fastest import fastest
from benchmarks.interleave import Round, Worker
from benchmarks.limits import Limits
from benchmarks.ours import config_of
from benchmarks.photographs import write_photographs
from inception.config import flatten, load
from inception.errors import UserError


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 12)
    return folder


def _case(contender=OURS, mode="train", *overrides):
    fields = flatten(load("configs/v3.py", ["augmentation=none", "batch_size=16", *overrides]))
    return Case(contender, mode, 1, fields)


def _input(contender, photographs):
    fields = (f"data_dir={photographs}", "image_size=75", "batch_size=8")
    return _case(contender, "data", *fields)


def test_instructions_are_for_the_processes_that_start_inside(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_one=1")
    before = dict(os.environ)
    with interleave.instructions("avx2"):
        inside = interleave.environment(1, tmp_path)
        assert inside["XLA_FLAGS"].split() == ["--xla_one=1", "--xla_cpu_max_isa=AVX2"]
        assert (inside["ONEDNN_MAX_CPU_ISA"], inside["ATEN_CPU_CAPABILITY"]) == ("AVX2", "avx2")
    assert dict(os.environ) == before
    with interleave.instructions("native"):
        assert interleave.environment(1, tmp_path)["XLA_FLAGS"].split() == ["--xla_one=1"]
    with pytest.raises(UserError, match=r"--isa=sse9: use some of native,avx2"):
        command.main(["--mode=train", "--isa=native,sse9"])


def test_a_case_survives_the_way_to_its_process():
    given = _case(OURS, "train", "dtype=bfloat16", "model.stem=7x7")
    got = Case(**json.loads(json.dumps(dataclasses.asdict(given))))
    assert got == given
    fields = ["augmentation=none", "batch_size=16", "dtype=bfloat16", "model.stem=7x7"]
    assert config_of(got) == load("configs/v3.py", fields)


def test_what_cannot_be_measured_is_refused(monkeypatch):
    for mode, name, known in (("train", "keras", "timm-compile"), ("data", OURS, "tf.data")):
        with pytest.raises(UserError, match=f"--against={name}.*{known}"):
            check(mode, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else name)
    check("train", "flax-naive")
    with pytest.raises(UserError, match=r"--against=timm needs timm: pip install"):
        check("train", "timm")
    for flag in ("threads", "rounds", "seconds"):
        with pytest.raises(UserError, match=f"--{flag}=-1"):
            command.main(["--mode=data", f"--{flag}=-1"])


def test_a_contender_that_fails_is_named(tmp_path):
    with pytest.raises(UserError, match="'pillow' ended with status 1"):
        Worker(_input("pillow", tmp_path / "nothing"), tmp_path)


def test_a_busy_contender_is_ended(photographs, tmp_path, monkeypatch):
    worker = Worker(_input("pillow", photographs), tmp_path)
    process = worker._process
    process.stdin.write(json.dumps({"steps": 1_000_000}) + "\n")
    process.stdin.flush()
    wait = process.wait
    monkeypatch.setattr(process, "wait", lambda timeout=None: wait(timeout and 0.1))
    worker.close()
    assert process.returncode == -9


def test_a_start_is_cold_and_then_not(photographs, tmp_path):
    found = starts.measure([_input("pillow", photographs)], rounds=1, cache=tmp_path)
    assert [start.cold for start in found] == [True, False]
    assert all(start.peak_bytes >= 1e7 for start in found)
    for table in (starts.table(mode, found) for mode in starts.ROWS):
        assert table.splitlines()[2].split()[0] == "pillow"


def test_the_order_of_rounds_alternates():
    order = []

    class Fake:
        def __init__(self, contender):
            self.case = _case(contender)

        def run(self, steps):
            order.append((self.case.contender, steps))
            return Round(steps, steps * {"a": 0.1, "b": 2.0}[self.case.contender], 1.0)

    found = interleave.interleave([Fake("a"), Fake("b")], rounds=2, seconds=1.0)
    assert order[-4:] == [("a", 10), ("b", 1), ("b", 1), ("a", 10)]
    assert [each.rate for each in found["a"]] == pytest.approx([10, 10])
    assert [each.core_rate for each in found["b"]] == [1, 1]


def test_limits_of_the_network():
    train = limits.needs(_case(OURS, "train", "dtype=bfloat16", "batch_size=256"))
    operations, traffic = train
    h100 = Limits("gpu", "NVIDIA H100 80GB HBM3", *limits.published("H100", "bfloat16"), *train)
    assert h100.by_arithmetic == pytest.approx(28_800, rel=5e-3)
    assert operations == 6 * 5_718_899_296
    assert traffic == pytest.approx(14 * 17.943e6 + 13 * 4 * 27_143_152 / 256, rel=1e-3)
    assert 1 / h100.roofline == pytest.approx(1 / h100.by_arithmetic + 1 / h100.by_traffic)
    assert limits.published("NVIDIA A100-SXM4-80GB", "bfloat16") == (312e12, 2.04e12)
    assert limits.published("TPU v5 lite", "float32") == (197e12, 0.819e12)
    assert all(np.isnan(limits.published("abacus", "float32")))


def test_the_fastest_wins_and_failures_are_noted():
    def broken():
        raise OSError("no compiler\nand more")

    fast, slow = object(), object()
    makers = {"slow": lambda: lambda: time.sleep(0.01) or slow, "broken": broken}
    call, note = fastest({**makers, "fast": lambda: lambda: fast})
    assert call() is fast
    assert "broken failed: no compiler;" in note
    with pytest.raises(RuntimeError, match="no compiler"):
        fastest({"broken": broken})


def test_the_command_compares_inputs(tmp_path, capsys):
    pytest.importorskip("skimage")
    output = tmp_path / "out.json"
    flags = ("--mode=data", "--against=pillow", "--augmentation=inception", "--size=75")
    command.main([*flags, "--batch=8", "--rounds=2", "--seconds=0.05", f"--output={output}"])
    results = json.loads(output.read_text())["measured"]
    assert [result["contender"] for result in results] == [
        *(OURS, "pillow", "ours, augmentation inception")
    ]
    assert results[0]["ours_over_theirs"] == [1, 1, 1]
    median, low, high = results[1]["ours_over_theirs"]
    assert 0 < low <= median <= high
    for result in results:
        assert 1e7 < result["peak_bytes"] < 1e10
        assert 0 < result["first_step_seconds"] < result["start_seconds"]
    printed = capsys.readouterr().out
    assert "per core-second" in printed
    assert "decodes the whole file" in printed


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_networks_are_compared(mode, tmp_path, capsys):
    output = tmp_path / "out.json"
    command.main(
        [
            *(f"--mode={mode}", "--against=flax-naive", "--size=75", "--batch=2", "--rounds=2"),
            *("--seconds=0.1", "--num_classes=10", "--config.model.width_multiplier=0.05"),
            f"--output={output}",
        ]
    )
    (found,) = json.loads(output.read_text())["measured"]
    assert [result["contender"] for result in found["results"]] == [OURS, "flax-naive"]
    assert found["limits"]["platform"] == "cpu"
    assert f"{mode}, batch 2, 75x75, float32" in capsys.readouterr().out
