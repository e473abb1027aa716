import inception  # noqa: F401, I001 (sets XLA's flags first)

import gzip
import hashlib
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tests.data_builders import NUM_TRAIN, NUM_VALIDATION, photograph

from inception.data import DataError, prepare
from inception.data.records import RecordSource

ROOT = Path(__file__).parents[2]
PREPARE = [sys.executable, "-m", "inception.data.prepare"]


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def tfrecords(tmp_path_factory):
    """A copy that somebody else prepared as TFRecord, in several files."""
    path = tmp_path_factory.mktemp("tfrecords")
    config = tfds.download.DownloadConfig(num_shards=3)
    tfds.builder("test_photos", data_dir=path).download_and_prepare(download_config=config)
    return path


@pytest.fixture
def copy(tfrecords, tmp_path):
    shutil.copytree(tfrecords, tmp_path / "copy")
    return tmp_path / "copy"


def folder_of(data_dir: Path) -> Path:
    return data_dir / "test_photos/1.0.0"


def expected(first: int, number: int) -> list[tuple[bytes, int]]:
    return sorted(photograph(i) for i in range(first, first + number))


# TFRecord copies


def test_tfrecord_copies_are_not_read_but_explained(copy):
    with pytest.raises(DataError, match=rf"prepare --dataset=test_photos --data_dir={copy}"):
        RecordSource("test_photos", "train", str(copy))


def test_conversion_keeps_every_record_in_order_and_the_original(copy):
    before = contents(copy)
    assert prepare.prepare("test_photos", str(copy)) == folder_of(copy)
    after = contents(copy)
    assert before.items() <= after.items()
    added = sorted(Path(name).name for name in after.keys() - before.keys())
    assert len([name for name in added if ".array_record-" in name]) == 6
    assert len(added) == 7  # and the lock

    import tensorflow as tf

    files = sorted(map(str, folder_of(copy).glob("*train.tfrecord*")))
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(files)]
    originals = [record.features.feature["image"].bytes_list.value[0] for record in records]
    train = RecordSource("test_photos", "train", str(copy))
    assert [image for image, _ in train] == originals
    assert sorted(train) == expected(0, NUM_TRAIN)
    validation = RecordSource("test_photos", "validation", str(copy))
    assert sorted(validation) == expected(NUM_TRAIN, NUM_VALIDATION)


def test_an_interrupted_conversion_goes_on(copy):
    prepare.prepare("test_photos", str(copy))
    complete = contents(copy)
    folder = folder_of(copy)
    lost = folder / "test_photos-train.array_record-00001-of-00003"
    kept = folder / "test_photos-train.array_record-00000-of-00003"
    lost.unlink()
    (folder / f".{lost.name}.part").write_bytes(b"half a file")
    written = kept.stat().st_mtime_ns
    with pytest.raises(DataError, match=r"lacks 1 of the 3 .*00001-of-00003"):
        RecordSource("test_photos", "train", str(copy))
    prepare.prepare("test_photos", str(copy))
    assert contents(copy) == complete
    assert kept.stat().st_mtime_ns == written


def test_a_damaged_tfrecord_is_named_and_not_converted(copy):
    source = folder_of(copy) / "test_photos-train.tfrecord-00001-of-00003"
    damaged = bytearray(source.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    source.write_bytes(damaged)
    with pytest.raises(DataError, match=r"train.tfrecord-00001-of-00003 cannot be read"):
        prepare.prepare("test_photos", str(copy))
    assert not (folder_of(copy) / "test_photos-train.array_record-00001-of-00003").exists()


def test_a_tfrecord_that_lacks_records_is_named(copy):
    import tensorflow as tf

    source = folder_of(copy) / "test_photos-train.tfrecord-00002-of-00003"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(source))]
    with tf.io.TFRecordWriter(str(source)) as writer:
        for record in records[:-1]:
            writer.write(record)
    with pytest.raises(DataError, match=rf"contains {len(records) - 1} records; .* {len(records)}"):
        prepare.prepare("test_photos", str(copy))


def test_a_copy_that_differs_is_noticed(copy, monkeypatch):
    read, begun = prepare._tfrecords, set()

    def other(path):
        """Gives another first record when it reads a file again."""
        yield next(records := read(path))[:: -1 if path in begun else 1]
        begun.add(path)
        yield from records

    monkeypatch.setattr(prepare, "_tfrecords", other)
    with pytest.raises(OSError, match="differs from"):
        prepare.prepare("test_photos", str(copy))
    assert not list(folder_of(copy).glob("test_photos*.array_record*"))


def test_a_folder_that_cannot_be_written(copy, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match="cp -rs"):
        prepare.prepare("test_photos", str(copy))


# Making a data set


def test_directories_that_are_taken_are_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file cannot be created"):
        prepare.prepare("test_photos", str(tmp_path / "file"))
    (tmp_path / "test_photos" / "1.0.0").mkdir(parents=True)
    (tmp_path / "test_photos" / "1.0.0" / "mine").write_text("precious")
    with pytest.raises(DataError, match=r"test_photos/1\.0\.0 exists but is incomplete"):
        prepare.prepare("test_photos", str(tmp_path))
    assert "preparing" not in capsys.readouterr().out.lower()
    assert (tmp_path / "test_photos" / "1.0.0" / "mine").read_text() == "precious"


def test_a_config_that_does_not_exist_is_answered_with_those_that_do(tmp_path):
    with pytest.raises(DataError, match=r"no such config or version; .*topimages"):
        prepare.prepare("imagenet_v2/nope", str(tmp_path))


def test_a_finished_data_set_is_left_alone(tmp_path):
    prepare.prepare("test_photos", str(tmp_path))
    before = contents(tmp_path)
    folder = prepare.prepare("test_photos", str(tmp_path))
    assert folder == folder_of(tmp_path)
    assert contents(tmp_path) == before
    (file,) = folder.glob("*validation.array_record*")
    file.unlink()
    with pytest.raises(DataError, match="remove the folder"):
        prepare.prepare("test_photos", str(tmp_path))


def test_a_killed_preparation_leaves_nothing_and_can_be_repeated(tmp_path):
    touched = tmp_path / "touched"
    code = (
        "import sys; sys.path.insert(0, 'tests'); import data_builders;"
        f"from inception.data.prepare import prepare; prepare('test_photos', {str(tmp_path)!r})"
    )
    environment = os.environ | {"STALL_AND_TOUCH": str(touched)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while not touched.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert touched.exists()
    assert list(tmp_path.rglob("incomplete.*"))
    with pytest.raises(DataError):
        RecordSource("test_photos", "train", str(tmp_path))

    prepare.prepare("test_photos", str(tmp_path))
    assert not list(tmp_path.rglob("*incomplete*"))
    assert sorted(RecordSource("test_photos", "train", str(tmp_path))) == expected(0, NUM_TRAIN)


def test_two_commands_at_once(tmp_path):
    command = [*PREPARE, "--dataset=digits", f"--data_dir={tmp_path}"]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("preparing dataset" in output for output in outputs) == 1
    assert len(RecordSource("digits", "train+validation", str(tmp_path))) == 1797
    assert not list(tmp_path.rglob("*incomplete*"))

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == f"'digits' is ready in {tmp_path}/digits/1.0.0\n"


def test_the_command_reports_errors_without_a_trace(tmp_path):
    result = subprocess.run(
        [*PREPARE, "--dataset=imagenet2012", f"--data_dir={tmp_path}", f"--manual_dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"No such file or directory: '{tmp_path}/ILSVRC2012_img_train.tar'" in result.stderr
    assert "Traceback" not in result.stderr
    assert "RuntimeWarning" not in result.stderr  # of a module that is imported and run


# ImageNet's archives, in miniature


def tar(path: Path, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Two classes of two images to train, and two images for validation."""
    manual = tmp_path / "manual"
    manual.mkdir()
    classes = {}
    for i, synset in enumerate(("n01440764", "n15075141")):  # the first class and the last
        files = {f"{synset}_{j}.JPEG": photograph(2 * i + j)[0] for j in range(2)}
        classes[f"{synset}.tar"] = tar(tmp_path / "one.tar", files)
    tar(manual / "ILSVRC2012_img_train.tar", classes)
    validation = {f"ILSVRC2012_val_{i:08}.JPEG": photograph(i + 9)[0] for i in (1, 2)}
    tar(manual / "ILSVRC2012_img_val.tar", validation)
    sizes = {"ILSVRC2012_img_train.tar": 2, "ILSVRC2012_img_val.tar": 2}
    monkeypatch.setitem(prepare.ARCHIVES, "imagenet2012", sizes)
    return manual


def test_imagenet_from_its_archives(archives, tmp_path):
    prepare.prepare("imagenet2012", str(tmp_path), str(archives))
    train = RecordSource("imagenet2012", "train", str(tmp_path))
    assert train.num_classes == 1000
    assert sorted(train) == sorted((photograph(i)[0], 0 if i < 2 else 999) for i in range(4))
    validation = RecordSource("imagenet2012", "validation", str(tmp_path))
    # The first two labels of the challenge's ground truth: n01751748 and n09193705.
    names = {validation.class_names[label] for _, label in validation}
    assert names == {"n01751748", "n09193705"}


def test_archives_that_are_missing_or_wrong(archives, tmp_path):
    train, validation = sorted(archives.iterdir())
    whole = validation.read_bytes()
    validation.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"img_val.tar .* unexpected end of data"):
        prepare.prepare("imagenet2012", str(tmp_path), str(archives))
    tar(validation, {"ILSVRC2012_val_00000001.JPEG": b"x"})
    with pytest.raises(DataError, match=r"img_val.tar .* 2 files, not: 1\."):
        prepare.prepare("imagenet2012", str(tmp_path), str(archives))
    validation.write_bytes(whole)
    train.unlink()
    with pytest.raises(DataError, match=r"No such file.*img_train.tar"):
        prepare.prepare("imagenet2012", str(tmp_path), str(archives))
    assert not list(tmp_path.rglob("*.array_record*"))


# Files of MNIST's kind


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes the four files, each image and label in both splits, compressed without names."""
    for split in ("train", "t10k"):
        for kind, numbers in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + numbers.ndim}i", 2048 + numbers.ndim, *numbers.shape)
            file = folder / f"{split}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(header + numbers.tobytes(), mtime=0))


def test_fashion_mnist_is_made_of_files_that_are_there(tmp_path, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 3)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 3)
    images = np.random.default_rng(0).integers(256, size=(3, 28, 28), dtype=np.uint8)
    labels = np.array([7, 0, 9], np.uint8)
    write_mnist(tmp_path, images, labels)
    folder = prepare.prepare("fashion_mnist", str(tmp_path / "data"), str(tmp_path))
    assert folder == tmp_path / "data/fashion_mnist/3.0.1"
    for split in ("train", "test"):
        source = RecordSource("fashion_mnist", split, str(tmp_path / "data"))
        found = {label: cv2.imdecode(np.frombuffer(png, np.uint8), 0) for png, label in source}
        assert found.keys() == set(labels)
        for image, label in zip(images, labels, strict=True):
            np.testing.assert_array_equal(found[label], image)


def test_a_damaged_file_of_fashion_mnist_is_named(tmp_path):
    write_mnist(tmp_path, np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8))
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    damaged = bytearray(file.read_bytes())
    damaged[-8] ^= 1  # its checksum
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read: CRC"):
        prepare.prepare("fashion_mnist", str(tmp_path / "data"), str(tmp_path))
