"""python -m benchmarks: its sides, turns, limits, tables and refusals."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import limits, speed, starts, turns, work
from benchmarks.limits import Limits
from benchmarks.ours import config_of, random_variables, synthetic_batch
from benchmarks.photographs import write_photographs
from benchmarks.turns import Round, Worker
from benchmarks.ways import fastest
from benchmarks.work import OURS, Work, check
from inception.config import flatten, load
from inception.errors import UserError
from inception.network.model import make_model


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 12)
    return folder


def _work(side=OURS, mode="train", *overrides):
    fields = flatten(load("configs/v3.py", ["augmentation=none", "batch_size=16", *overrides]))
    return Work(side, mode, 1, fields)


def _input(side, photographs):
    return _work(side, "data", f"data_dir={photographs}", "image_size=75", "batch_size=8")


def test_work_survives_the_way_to_its_process():
    given = _work(OURS, "train", "dtype=bfloat16", "model.stem=7x7")
    got = Work(**json.loads(json.dumps(dataclasses.asdict(given))))
    assert got == given
    assert (got.batch, got.size, got.dtype) == (16, 299, "bfloat16")
    config = load("configs/v3.py", ["augmentation=none", "batch_size=16", "dtype=bfloat16"])
    config.model.stem = "7x7"
    assert config_of(got) == config


@pytest.mark.parametrize(
    ("mode", "side", "word"), [("train", "keras", "timm-compile"), ("data", OURS, "tf.data")]
)
def test_unknown_opponents_are_refused(mode, side, word):
    with pytest.raises(UserError, match=f"--against={side}.*{word}"):
        check(mode, side)


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else name)
    check("train", "flax-naive")
    with pytest.raises(UserError, match=r"--against=timm needs timm: pip install"):
        check("train", "timm")


def test_opponents_need_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(work, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"--against=flax-naive.*checkout"):
        check("infer", "flax-naive")


def test_sides_take_turns_in_their_processes(photographs, tmp_path):
    works = [_input(side, photographs) for side in (OURS, "pillow")]
    results = speed.measure(works, rounds=3, seconds=0.1, cache=tmp_path)
    assert [result.side for result in results] == [OURS, "pillow"]
    ours, theirs = results
    assert ours.ours_over_theirs == (1, 1, 1)
    low, high = theirs.ours_over_theirs[1:]
    assert 0 < low <= theirs.ours_over_theirs.median <= high
    assert "decodes the whole file" in theirs.does
    assert all(1e7 < result.peak_bytes < 1e10 for result in results)
    assert all(0 < result.first_step_seconds < result.start_seconds for result in results)
    assert "per core-second" in speed.input_table(results)


def test_a_side_that_fails_is_named(tmp_path):
    with pytest.raises(UserError, match="'pillow' ended with status 1"):
        Worker(_input("pillow", tmp_path / "nothing"), tmp_path)


def test_a_busy_side_is_ended(photographs, tmp_path, monkeypatch):
    worker = Worker(_input("pillow", photographs), tmp_path)
    process = worker._process
    process.stdin.write(json.dumps({"steps": 1_000_000}) + "\n")
    process.stdin.flush()
    wait = process.wait
    monkeypatch.setattr(process, "wait", lambda timeout=None: wait(timeout and 0.1))
    worker.close()
    assert process.returncode == -9


def test_a_start_is_cold_and_then_not(photographs, tmp_path):
    found = starts.measure([_input("pillow", photographs)], rounds=2, cache=tmp_path)
    assert [start.cold for start in found] == [True, False, True, False]
    assert all(start.peak_bytes >= 1e7 for start in found)
    for table in (starts.startup_table(found), starts.memory_table(found)):
        assert [line.split()[0] for line in table.splitlines()[2:4]] == ["pillow", "pillow"]


def test_the_order_of_turns_alternates():
    order = []

    class Fake:
        def __init__(self, side):
            self.work = dataclasses.replace(_work(), side=side)

        def run(self, steps):
            order.append((self.work.side, steps))
            return Round(steps, steps * {"a": 0.1, "b": 2.0}[self.work.side], 1.0)

    found = turns.take_turns([Fake("a"), Fake("b")], rounds=2, seconds=1.0)
    assert order[-4:] == [("a", 10), ("b", 1), ("b", 1), ("a", 10)]
    assert [each.rate for each in found["a"]] == pytest.approx([10, 10])
    assert [each.core_rate for each in found["b"]] == [1, 1]


def test_limits_of_the_network():
    train = limits.needs(_work(OURS, "train", "dtype=bfloat16", "batch_size=256"))
    operations, traffic = train
    h100 = Limits("gpu", "NVIDIA H100 80GB HBM3", *limits.published("H100", "bfloat16"), *train)
    assert h100.by_arithmetic == pytest.approx(28_800, rel=5e-3)
    assert operations == 6 * 5_718_899_296
    assert traffic == pytest.approx(14 * 17.943e6 + 13 * 4 * 27_143_152 / 256, rel=1e-3)
    assert 1 / h100.roofline == pytest.approx(1 / h100.by_arithmetic + 1 / h100.by_traffic)
    operations, traffic = limits.needs(_work(OURS, "infer", "batch_size=1"))
    assert operations == 2 * 5_713_216_096
    assert traffic == pytest.approx(2 * 35.870e6 + 4 * 23_817_352, rel=1e-3)


def test_devices_are_known_by_their_names():
    assert limits.published("NVIDIA A100-SXM4-80GB", "bfloat16") == (312e12, 2.04e12)
    assert limits.published("TPU v5 lite", "float32") == (197e12, 0.819e12)
    assert all(np.isnan(limits.published("abacus", "float32")))


def test_a_cpu_is_measured():
    assert 1e9 < limits.cpu_operations(size=256) < 1e14
    assert 1e8 < limits.cpu_bandwidth(threads=2, megabytes=8) < 1e13


def test_made_up_values_are_finite_and_alive(tiny):
    config = tiny()
    model = make_model(config, 10)
    variables = random_variables(model, 75)
    stem = variables["params"]["Conv2d_2a_3x3"]["conv"]["kernel"]
    assert stem.dtype == np.float32
    assert stem.std() == pytest.approx(np.sqrt(2 / (9 * stem.shape[2])), rel=0.1)
    assert variables["batch_stats"]["Conv2d_2a_3x3"]["bn"]["var"].min() > 0.4
    batch = synthetic_batch(Work(OURS, "train", 1, flatten(config), 10))
    assert batch["image"].shape == (16, 75, 75, 3)
    assert batch["label"].tolist() == [*range(10), *range(6)]


def test_the_fastest_way_wins_and_failures_are_told():
    import time

    def broken():
        raise OSError("no compiler\nand more")

    fast, slow = object(), object()
    ways = {"slow": lambda: lambda: time.sleep(0.01) or slow, "broken": broken}
    call, note = fastest({**ways, "fast": lambda: lambda: fast})
    assert call() is fast
    assert "broken failed: no compiler;" in note
    with pytest.raises(RuntimeError, match="no compiler"):
        fastest({"broken": broken})


def test_spread():
    spread = speed.Spread.of([3.0, 1.0, 2.0])
    assert spread == (2.0, 1.0, 3.0)
    assert spread.text() == "2.0 (1.0 to 3.0)"


def test_the_command_compares_inputs(photographs, tmp_path, capsys):
    output = tmp_path / "out.json"
    command.main(
        [
            *("--mode=data", "--against=pillow", "--augmentation=inception", "--size=75"),
            *("--batch=8", "--rounds=1", "--seconds=0.05", f"--output={output}"),
        ]
    )
    written = json.loads(output.read_text())
    assert written["arguments"]["rounds"] == 1
    sides = [result["side"] for result in written["measured"]]
    assert sides == [OURS, "pillow", "ours, augmentation inception"]
    assert "128 JPEG files" in capsys.readouterr().out


def test_the_command_refuses_before_it_measures():
    with pytest.raises(UserError, match="--against=abacus"):
        command.main(["--mode=train", "--against=abacus"])


@pytest.mark.parametrize("flag", ["threads", "rounds", "seconds"])
def test_numbers_must_be_positive(flag):
    with pytest.raises(UserError, match=f"--{flag}=-1"):
        command.main(["--mode=data", f"--{flag}=-1"])


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
    assert [result["side"] for result in found["results"]] == [OURS, "flax-naive"]
    assert found["limits"]["platform"] == "cpu"
    assert f"{mode}, batch 2, 75x75, float32" in capsys.readouterr().out
