"""The doctor's checks: each reason why a run cannot start is found and said."""

import importlib.util

import jax
import pytest
from PIL import Image

import inception
from inception.data.sources import ArraySource
from inception.doctor import __main__ as doctor
from inception.doctor import checks, speed
from inception.workdir.identity import start_or_resume


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.3)


@pytest.fixture
def found(tiny, digits, tmp_path):
    """Makes a check of the digits in memory, whose step need not be compiled."""

    def make(check, *overrides: str, workdir=tmp_path / "run", **parts) -> checks.Finding:
        config = tiny(*overrides)
        run = checks.PlannedRun(config, workdir)
        step = speed.StepSpeed(100.0, config.batch_size, config.batch_size, 10**6, 10**6)
        run.__dict__.update({"train_source": digits(slice(0, 64)), "step": step} | parts)
        return doctor.attempt(check, run)

    return make


# What keeps a run from starting.


def test_a_workdir_that_cannot_be_made(found, tmp_path):
    (tmp_path / "file").touch()
    finding = found(checks.workdir, workdir=tmp_path / "file" / "run")
    assert finding.status == "FAIL"
    assert f"workdir {tmp_path / 'file' / 'run'} cannot be written" in finding.text


def test_a_workdir_of_another_config(found, tiny, digits, tmp_path):
    """Or of other data; nothing in it is touched."""
    start_or_resume(tmp_path, tiny("momentum=0.8"), digits(slice(0, 64)))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    finding = found(checks.workdir, workdir=tmp_path)
    assert finding.status == "FAIL"
    assert f"{tmp_path} holds a run of another config" in finding.text
    assert "config.momentum: 0.8 in the workdir, 0.9 now" in finding.text
    finding = found(
        checks.workdir, "momentum=0.8", workdir=tmp_path, train_source=digits(slice(0, 80))
    )
    assert "trains on 64 images and the data now has 80" in finding.text
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_workdir_of_this_run(found, tiny, digits, tmp_path):
    """With more epochs, which may change; nothing in it is touched."""
    start_or_resume(tmp_path, tiny(), digits(slice(0, 64)))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    finding = found(checks.workdir, "num_epochs=100", workdir=tmp_path)
    assert finding == checks.Finding(f"{tmp_path} holds this run")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("override", ["eval.ensemble=a,b", "eval.exclude=nowhere.txt"])
def test_what_training_refuses_the_doctor_refuses(found, digits, override):
    finding = found(checks.batch, override, eval_source=digits(slice(0, 9)))
    assert finding.status == "FAIL"
    assert override.partition("=")[2] in finding.text


def test_a_batch_and_data_that_teach_nothing(found, digits):
    finding = found(checks.batch, "batch_size=1", eval_source=digits(slice(0, 9)))
    assert finding.status == "FAIL"
    assert "config.batch_size=1 leaves batch normalization one value" in finding.text
    one = ArraySource([digits([0])[0][0]] * 64, [0] * 64, ["photos"])
    finding = found(checks.batch, train_source=one, eval_source=one)
    assert finding.status == "FAIL"
    assert "one class 'photos'" in finding.text


class Bucket:
    """Stands in for a path in a bucket: remembers what was written there and removed."""

    def __init__(self, path: str = "gs://bucket/run", calls: list | None = None):
        self.path, self.calls = path, [] if calls is None else calls

    def __fspath__(self):
        return self.path

    __str__ = __fspath__

    def __truediv__(self, name):
        return Bucket(f"{self.path}/{name}", self.calls)

    def write_bytes(self, content):
        self.calls.append(("write", self.path))

    def unlink(self):
        self.calls.append(("remove", self.path))


def test_a_workdir_in_a_bucket(tiny, digits, monkeypatch):
    """It is written to, and nothing stays there; how much room is left nobody knows."""
    monkeypatch.setattr(checks, "has_trained", lambda _: False)
    run = checks.PlannedRun(tiny())
    run.workdir, run.train_source = Bucket(), digits(slice(0, 64))
    assert doctor.attempt(checks.workdir, run).status == "PASS"
    (write, written), (remove, removed) = run.workdir.calls
    assert (write, remove) == ("write", "remove")
    assert written == removed
    room = doctor.attempt(checks.disk, run)
    assert room.status == "PASS"
    assert "not known" in room.text

    def refuse(*_):
        raise RuntimeError("403 Forbidden")

    monkeypatch.setattr(Bucket, "write_bytes", refuse)
    assert doctor.attempt(checks.workdir, run).status == "FAIL"


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
    finding = doctor.attempt(checks.files, checks.PlannedRun(tiny(*data)))
    assert finding.status == status
    assert str(folder / split / "class_1" / "1.png") in finding.text
    assert len(finding.text.splitlines()) == 2
    (folder / split / "class_1" / "1.png").write_bytes(b"")
    (folder / split / "class_2" / "2.png").write_bytes(b"no image")
    finding = doctor.attempt(checks.files, checks.PlannedRun(tiny(*data)))
    assert len(finding.text.splitlines()) == 3


def test_named_evaluations_are_examined(tiny):
    run = checks.PlannedRun(tiny("dataset=fake", "evaluations.real.split=train"))
    sizes = checks.evaluation_data(run).text.splitlines()
    assert [line.split(": ")[0] for line in sizes] == ["fake:validation", "fake:train"]


def test_without_a_workdir(found):
    assert found(checks.workdir, workdir=None).status == "WARN"


def test_too_little_disk(found):
    finding = found(checks.disk, "keep_checkpoints=10000", "model.width_multiplier=1.0")
    assert finding.status == "FAIL"
    assert "keep_checkpoints" in finding.advice


def test_checkpoints_that_are_there_need_no_room(found, tmp_path, monkeypatch):
    """On a full disk, a run that already holds all its checkpoints can go on."""
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: FullDisk)
    assert found(checks.disk, workdir=tmp_path).status == "FAIL"
    old = tmp_path / "checkpoints" / "1" / "state"
    old.parent.mkdir(parents=True)
    with old.open("wb") as file:
        file.truncate(10**9)
    assert found(checks.disk, workdir=tmp_path).status == "PASS"


class FullDisk:
    free = 0


def test_an_image_that_cannot_be_read(found):
    finding = found(checks.input_speed, train_source=ArraySource([b"no image"] * 20, [0] * 20))
    assert finding.status == "FAIL"
    assert finding.text.startswith("image ")


def test_labels_that_cannot_be_trained_on(found, digits):
    images = [digits([0])[0][0]] * 3
    finding = found(checks.input_speed, train_source=ArraySource(images, [[0, 1]] * 3))
    assert finding.status == "FAIL"
    assert "2 labels" in finding.text


def test_a_step_that_runs_out_of_memory(monkeypatch):
    def measure_step(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating\n" * 100)

    monkeypatch.setattr(speed, "measure_step", measure_step)
    run = checks.PlannedRun(inception.load_config("configs/v3.py", ["dataset=fake"]))
    finding = doctor.attempt(checks.step_speed, run)
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
        (0.5e9, "FAIL", "use a smaller batch_size"),  # 8 micro-batches are no whole groups
    ],
)
def test_memory(found, monkeypatch, limit, status, advice):
    monkeypatch.setattr(speed, "device_memory", lambda: limit)
    step = speed.StepSpeed(100.0, 64, 64, constant_bytes=10**8, temporary_bytes=2 * 10**9)
    finding = found(checks.memory, "batch_size=64", "model.batch_norm_group=16", step=step)
    assert (finding.status, finding.advice) == (status, advice)


def test_memory_is_scaled_to_the_batch(found):
    step = speed.StepSpeed(100.0, 8, 8, constant_bytes=2**30, temporary_bytes=2**30)
    finding = found(checks.memory, "batch_size=64", step=step)
    assert "about 9.00 of" in finding.text
    assert "scaled from a batch of 8" in finding.text


def test_what_limits_the_run(found, monkeypatch):
    monkeypatch.setattr(speed, "on_cpu", lambda: False)
    monkeypatch.setattr(speed, "cores", lambda: 4)
    step = speed.StepSpeed(1000.0, 16, 16, 1, 1)
    slow = found(checks.bottleneck, "data_threads=2", step=step, input=600.0)  # 300 a core
    assert slow.status == "WARN"
    assert "the input; to feed the step takes 4 cores" in slow.text
    fast = found(checks.bottleneck, "data_threads=0", step=step, input=2000.0)  # 500 a core
    assert fast.status == "PASS"
    assert "the step; to feed it takes 2 of 4 cores" in fast.text


@pytest.mark.parametrize(("on_cpu", "images_per_second"), [(False, "100.0"), (True, "80.0")])
def test_duration(found, monkeypatch, on_cpu, images_per_second):
    """Both at once, or in turns where they share the cores: 1/100 + 1/400 = 1/80."""
    monkeypatch.setattr(speed, "on_cpu", lambda: on_cpu)
    images = ArraySource([b""] * 864, [0] * 864)
    finding = found(checks.duration, "num_epochs=10000", train_source=images, input=400.0)
    days = 8.64e6 / float(images_per_second) / 86400
    assert f"{days:.1f} days for 10000 epochs at {images_per_second} images/s" in finding.text
    assert finding.status == "PASS"


def test_a_run_of_months_is_a_warning(found):
    assert found(checks.duration, "num_epochs=1e9", input=400.0).status == "WARN"


# Versions.

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


def test_a_gpu_that_jax_does_not_use(monkeypatch):
    run = checks.PlannedRun(inception.load_config("configs/digits.py"))
    monkeypatch.setattr(checks.Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    finding = checks.devices(run)
    assert finding.status == "WARN"
    assert "NVIDIA" in finding.advice
