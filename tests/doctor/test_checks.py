"""The doctor's checks: each reason why a run cannot start is found and named."""

import importlib.util
from types import SimpleNamespace

import jax
import pytest
from PIL import Image

import inception
from inception.data.sources import ArraySource
from inception.doctor import checks, speed
from inception.doctor.checks import PlannedRun, attempt
from inception.workdir.identity import start_or_resume


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.3)


@pytest.fixture
def found(tiny, digits, tmp_path):
    """Makes a check of the digits in memory, whose step need not be compiled."""

    def make(check, *overrides: str, workdir=tmp_path / "run", **parts) -> checks.Finding:
        config = tiny(*overrides)
        run = PlannedRun(config, workdir)
        step = speed.StepSpeed(100.0, config.batch_size, config.batch_size, 10**6, 10**6)
        source = digits(slice(0, 64))
        run.__dict__.update({"train_source": source, "eval_source": source, "step": step} | parts)
        return attempt(check, run)

    return make


# What keeps a run from starting.


def test_a_workdir_that_cannot_be_written(found, tmp_path):
    (tmp_path / "file").touch()
    finding = found(checks.workdir, workdir=tmp_path / "file" / "run")
    assert finding.status == "FAIL"
    assert f"workdir {tmp_path / 'file' / 'run'} cannot be written" in finding.text
    assert found(checks.workdir, workdir=None).status == "WARN"


def test_a_workdir_is_another_runs_or_this_ones_and_nothing_in_it_is_touched(
    found, tiny, digits, tmp_path
):
    start_or_resume(tmp_path, tiny(), digits(slice(0, 64)))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    same = found(checks.workdir, "num_epochs=100", workdir=tmp_path)  # epochs may change
    assert same == checks.Finding(f"{tmp_path} holds this run")
    other = found(checks.workdir, "momentum=0.8", workdir=tmp_path)
    assert other.status == "FAIL"
    assert "config.momentum: 0.9 in the workdir, 0.8 now" in other.text
    data = found(checks.workdir, workdir=tmp_path, train_source=digits(slice(0, 80)))
    assert "trains on 64 images and the data now has 80" in data.text
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_workdir_in_a_bucket_is_written_to_and_left_as_it_was(found, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "is_local", lambda _: False)
    (tmp_path / "run").mkdir()
    assert found(checks.workdir).status == "PASS"
    assert not list((tmp_path / "run").iterdir())
    room = found(checks.disk)
    assert room.status == "PASS"
    assert "unknown" in room.text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("eval.ensemble=a,b", "a,b"),
        ("eval.exclude=nowhere.txt", "nowhere.txt"),
        ("batch_size=1", "config.batch_size=1 leaves batch normalization one value"),
    ],
)
def test_what_training_refuses_the_doctor_refuses(found, override, said):
    finding = found(checks.batch, override)
    assert finding.status == "FAIL"
    assert said in finding.text


@pytest.fixture
def folder(tmp_path):
    """A folder of images with a file that was cut off in training, and none in validation."""
    for split in ("train", "val"):
        for number in range(3):
            file = tmp_path / split / f"class_{number}" / f"{number}.png"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (80, 80)).save(file)
    cut = tmp_path / "train" / "class_1" / "1.png"
    cut.write_bytes(cut.read_bytes()[:60])
    return tmp_path


@pytest.mark.parametrize(
    ("on_bad_record", "split", "status"),
    [("fail", "train", "FAIL"), ("skip", "train", "WARN"), ("skip", "val", "FAIL")],
)
def test_files_that_were_cut_off(folder, tiny, on_bad_record, split, status):
    """Training can leave them out; an evaluation counts every image."""
    if split == "val":
        (folder / "train").rename(folder / "other")
        (folder / "val").rename(folder / "train")
        (folder / "other").rename(folder / "val")
    data = ("dataset=folder", f"data_dir={folder}", f"on_bad_record={on_bad_record}")
    finding = attempt(checks.files, PlannedRun(tiny(*data)))
    assert finding.status == status
    assert str(folder / split / "class_1" / "1.png") in finding.text
    assert len(finding.text.splitlines()) == 2


def test_named_evaluations_are_examined(tiny):
    run = PlannedRun(tiny("dataset=fake", "evaluations.real.split=train"))
    sizes = checks.evaluation_data(run).text.splitlines()
    assert [line.split(": ")[0] for line in sizes] == ["fake:validation", "fake:train"]


def test_a_full_disk(found, tmp_path, monkeypatch):
    """A run that already holds all its checkpoints can go on."""
    finding = found(checks.disk, "keep_checkpoints=10000", "model.width_multiplier=1.0")
    assert finding.status == "FAIL"
    assert "keep_checkpoints" in finding.advice
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert found(checks.disk, workdir=tmp_path).status == "FAIL"
    old = tmp_path / "checkpoints" / "1" / "state"
    old.parent.mkdir(parents=True)
    with old.open("wb") as file:
        file.truncate(10**9)
    assert found(checks.disk, workdir=tmp_path).status == "PASS"


def test_an_image_that_cannot_be_read(found):
    finding = found(checks.input_speed, train_source=ArraySource([b"no image"] * 20, [0] * 20))
    assert finding.status == "FAIL"
    assert finding.text.startswith("image ")


def test_a_step_that_runs_out_of_memory(monkeypatch):
    def measure_step(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating\n" * 100)

    monkeypatch.setattr(speed, "measure_step", measure_step)
    run = PlannedRun(inception.load_config("configs/v3.py", ["dataset=fake"]))
    finding = attempt(checks.step_speed, run)
    assert finding.status == "FAIL"
    assert "accumulation_steps" in finding.advice
    assert len(finding.text) < 100


# What the numbers mean.


@pytest.mark.parametrize(
    ("limit", "status", "advice"),
    [
        (3e9, "PASS", ""),
        (2.2e9, "WARN", "config.accumulation_steps=2 fits"),  # 1.1 GB
        (1.0e9, "FAIL", "config.accumulation_steps=4 fits"),  # 0.6 GB
        (0.5e9, "FAIL", "use a smaller batch_size"),  # 8 micro-batches are not whole groups
    ],
)
def test_memory(found, monkeypatch, limit, status, advice):
    monkeypatch.setattr(speed, "device_memory", lambda: limit)
    step = speed.StepSpeed(100.0, 8, 8, constant_bytes=10**8, temporary_bytes=25 * 10**7)
    finding = found(checks.memory, "batch_size=64", "model.batch_norm_group=16", step=step)
    assert (finding.status, finding.advice) == (status, advice)
    assert finding.text.startswith("about 1.96 of")  # 2.1 GB
    assert "scaled from a batch of 8" in finding.text


def test_what_limits_the_run(found, monkeypatch):
    monkeypatch.setattr(speed, "on_cpu", lambda: False)
    monkeypatch.setattr(speed, "cores", lambda: 4)
    step = speed.StepSpeed(1000.0, 16, 16, 1, 1)
    slow = found(checks.bottleneck, "data_threads=2", step=step, input=600.0)  # 300 a core
    assert slow.status == "WARN"
    assert "the input; feeding the step takes 4 cores" in slow.text
    fast = found(checks.bottleneck, "data_threads=0", step=step, input=2000.0)  # 500 a core
    assert fast.status == "PASS"
    assert "the step; feeding it takes 2 of 4 cores" in fast.text


@pytest.mark.parametrize(("on_cpu", "images_per_second"), [(False, "100.0"), (True, "80.0")])
def test_duration(found, monkeypatch, on_cpu, images_per_second):
    """Both at once, or in turns where they share the cores: 1/100 + 1/400 = 1/80."""
    monkeypatch.setattr(speed, "on_cpu", lambda: on_cpu)
    images = ArraySource([b""] * 864, [0] * 864)
    finding = found(checks.duration, "num_epochs=10000", train_source=images, input=400.0)
    days = 8.64e6 / float(images_per_second) / 86400
    assert f"{days:.1f} days for 10000 epochs at {images_per_second} images/s" in finding.text
    assert finding.status == "PASS"
    assert found(checks.duration, "num_epochs=1e9", input=400.0).status == "WARN"


# Versions and devices.

GOOD = {"jax": "0.12.0.1", "jaxlib": "0.12.0"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"jaxlib": "0.13.1"}, "jaxlib 0.13.1"),
        ({"jax": "0.9.2"}, "jax 0.9.2"),
        ({"jax-cuda13-plugin": "0.11.0"}, "ignores jax-cuda13-plugin 0.11.0"),
    ],
)
def test_versions_that_misbehave(changed, said):
    assert not list(checks.version_problems(GOOD))
    (problem,) = checks.version_problems(GOOD | changed)
    assert said in problem


@pytest.mark.parametrize(
    ("module", "status"), [("tensorboard", "FAIL"), ("importlib_resources", "WARN")]
)
def test_modules_that_others_forgot_to_require(found, monkeypatch, module, status):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    finding = found(checks.versions)
    assert finding.status == status
    assert f"pip install {module}" in finding.advice


def test_a_gpu_that_jax_does_not_use(found, monkeypatch):
    monkeypatch.setattr(checks.Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    finding = found(checks.devices, workdir=None)
    assert finding.status == "WARN"
    assert "NVIDIA" in finding.advice
