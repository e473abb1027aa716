import inception  # noqa: F401, I001 (sets XLA's flags first)

import collections
import io
import pickle
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from tests import data_builders  # noqa: F401 (registers the tests' data sets)
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tests.data_builders import CLASSES, NUM_TRAIN, NUM_VALIDATION, photograph
from sklearn.datasets import load_digits

from inception.data import DataError
from inception.data.decode import BadImage
from inception.data.prepare import prepare
from inception.data.readers import read_example
from inception.data.records import RecordSource
from inception.data.sources import ArraySource, FakeSource, open_source
from inception.fid.images import open_images


def pixels(image: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    for name in ("test_photos", "test_photos_real", "test_unlabelled/unknown"):
        prepare(name, str(path))
    prepare("test_unlabelled/none", str(path))
    return str(path)


# tfds data sets


def test_records_are_the_files_that_were_prepared(data_dir):
    source = open_source("test_photos", "train", data_dir)
    assert (len(source), source.num_classes, source.label_width) == (NUM_TRAIN, 3, 0)
    assert source.class_names == CLASSES
    assert sorted(source) == sorted(photograph(i) for i in range(NUM_TRAIN))


@pytest.mark.parametrize("name", ["test_photos", "test_photos_real"])
def test_labels_are_those_of_the_examples(data_dir, name):
    source = RecordSource(name, "validation", data_dir)
    expected = [source[index][1] for index in range(len(source))]
    np.testing.assert_array_equal(source.labels(), expected)


def test_without_a_home_directory_the_data_must_be_named(monkeypatch):
    def nobody(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(DataError, match=r"no home directory.*data_dir"):
        RecordSource("test_photos", "train")


def test_a_damaged_description_is_one_error(data_dir, tmp_path):
    shutil.copytree(Path(data_dir, "test_photos"), tmp_path / "test_photos")
    (tmp_path / "test_photos" / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset_info\.json .* is damaged"):
        RecordSource("test_photos", "train", str(tmp_path))


def test_split_expressions_select_what_tfds_selects(data_dir):
    whole = list(RecordSource("test_photos", "train", data_dir))
    validation = list(RecordSource("test_photos", "validation", data_dir))
    assert list(RecordSource("test_photos", "train[10:20]", data_dir)) == whole[10:20]
    assert list(RecordSource("test_photos", "train[:50%]", data_dir)) == whole[: NUM_TRAIN // 2]
    both = RecordSource("test_photos", "train[-2:]+validation[:3]", data_dir)
    assert list(both) == whole[-2:] + validation[:3]
    assert len(validation) == NUM_VALIDATION


def test_threads_read_the_same_bytes(data_dir):
    expected = list(RecordSource("test_photos", "train", data_dir))
    source = RecordSource("test_photos", "train", data_dir)  # has not opened its files yet

    def read(thread):
        order = np.random.default_rng(thread).permutation(len(source))
        return all(source[int(i)] == expected[i] for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(64)))


def test_a_source_can_be_sent_to_another_process(data_dir):
    source = RecordSource("test_photos", "train", data_dir)
    assert list(pickle.loads(pickle.dumps(source))) == list(source)


def test_more_files_than_the_soft_limit_allows(tmp_path):
    config = tfds.download.DownloadConfig(num_shards=NUM_VALIDATION)
    builder = tfds.builder("test_photos", data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(download_config=config)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
    try:
        assert len(list(RecordSource("test_photos", "train", str(tmp_path)))) == NUM_TRAIN
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_several_labels_per_image(data_dir):
    source = open_source("test_photos_real", "validation", data_dir)
    assert source.label_width > 2
    labels = [label for _, label in source]
    assert all(label.dtype == np.int32 and label.shape == (source.label_width,) for label in labels)
    found = sorted(tuple(label[label >= 0].tolist()) for label in labels)
    assert found == [(), (0, 2), (1,)]


def test_a_label_out_of_range_names_the_record(data_dir):
    source = RecordSource("test_unlabelled/unknown", "test", data_dir)
    with pytest.raises(DataError, match="record 0 of test_unlabelled/unknown:test: label -1 "):
        read_example(source, 0)


def test_features_that_are_no_classification(data_dir):
    with pytest.raises(DataError, match=r"'label'.*'caption'"):
        RecordSource("test_unlabelled/none", "test", data_dir)


def test_labels_may_not_be_needed(data_dir):
    """inception.fid measures images of data sets without any, such as LSUN."""
    source = open_source("test_unlabelled/none", "test", data_dir, labeled=False)
    ((image, label),) = source
    assert image == photograph(0)[0]
    assert label == source.labels()[0] == -1
    path = "tfds:test_unlabelled/none:test"
    (found,) = [read().pixels for _, read in open_images(path, data_dir=data_dir).items]
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(image))))


@pytest.mark.parametrize("split", ["nope", "train[5:", "train[5:5]", ""])
def test_bad_splits_name_what_there_is(data_dir, split):
    with pytest.raises(DataError, match=r"train \(36\), validation \(10\)"):
        RecordSource("test_photos", split, data_dir)


def test_a_damaged_file_is_noticed(data_dir, tmp_path):
    prepare("test_photos", str(tmp_path))
    (file,) = tmp_path.glob("test_photos/1.0.0/*train*")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    file.write_bytes(damaged)
    with pytest.raises(BadImage, match="the record cannot be read"):
        list(RecordSource("test_photos", "train", str(tmp_path)))


def test_unknown_names_get_suggestions(tmp_path):
    with pytest.raises(DataError, match=r"did you mean .*imagenet2012"):
        open_source("imagenet2021", "train", str(tmp_path))
    with pytest.raises(DataError, match="unknown data set 'xyzzy'"):
        open_source("xyzzy", "train", str(tmp_path))
    with pytest.raises(DataError, match="data set 'two words'"):
        open_source("two words", "train", str(tmp_path))
    with pytest.raises(DataError, match="data set '': "):
        open_source("", "train", str(tmp_path))
    for name in ("test_photos:9.9.9", "test_unlabelled/nope", "folder"):
        with pytest.raises(DataError, match=name):
            prepare(name, str(tmp_path))


def test_missing_imagenet_says_what_to_do(tmp_path):
    with pytest.raises(DataError) as raised:
        open_source("imagenet2012", "train", str(tmp_path))
    message = str(raised.value)
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in message
    assert f"prepare --dataset=imagenet2012 --data_dir={tmp_path} --manual_dir=" in message


def test_buckets_are_refused_with_advice():
    with pytest.raises(DataError, match="gcsfuse"):
        open_source("imagenet2012", "train", "gs://bucket/data")


@pytest.mark.parametrize("name", ["imagenet_v2", "imagenet_a", "imagenet_r", "imagenet2012_real"])
def test_the_other_test_sets_number_classes_as_imagenet_does(name, tmp_path):
    imagenet = tfds.builder("imagenet2012", data_dir=tmp_path).info.features["label"].names
    features = tfds.builder(name, data_dir=tmp_path).info.features
    label = features["real_label"].feature if "real_label" in features else features["label"]
    assert label.names == imagenet == sorted(imagenet)
    assert len(imagenet) == 1000


# digits


def test_digits_are_prepared_in_silence(tmp_path, capfd):
    assert len(open_source("digits", "validation", str(tmp_path))) == 360
    assert capfd.readouterr() == ("", "")


def test_digits_are_scikit_learns(tmp_path):
    intensities, labels = load_digits(return_X_y=True)
    expected = collections.Counter(
        (tuple(image.astype(int)), int(label))
        for image, label in zip(intensities, labels, strict=True)
    )
    found, sizes = collections.Counter(), []
    for split in ("train", "validation"):
        source = open_source("digits", split, str(tmp_path))
        sizes.append(len(source))
        assert source.num_classes == 10
        assert source.class_names == tuple("0123456789")
        images = [(pixels(image), label) for image, label in source]
        assert max(image.max() for image, _ in images) == 255
        found += collections.Counter(
            (tuple(np.round(image / 255 * 16).astype(int).ravel()), label)
            for image, label in images
        )
        assert min(collections.Counter(label for _, label in images).values()) >= 0.07 * len(source)
    assert sizes == [1437, 360]
    assert found == expected


# arrays and generated images


def test_arrays_of_every_kind():
    images = np.zeros((3, 5, 4, 3), np.uint8)
    source = ArraySource(images, [0, 2, 1])
    assert (len(source), source.num_classes, source.label_width) == (3, 3, 0)
    assert source[1][0] is not None
    assert source[1][0].shape == (5, 4, 3)
    assert source[1][1] == 2
    assert ArraySource([b"a", b"b"], [0, 0], class_names=("x", "y"))[1] == (b"b", 0)
    several = ArraySource(images, [[0, -1], [-1, -1], [1, 4]], num_classes=9)
    assert (several.label_width, several.num_classes) == (2, 9)
    assert several[2][1].tolist() == [1, 4]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"3 images are int64 \[2\]"),
        ([0.0, 1.0, 2.0], "are float64"),
        (3, r"are int64 \[\]"),
    ],
)
def test_wrong_labels_of_arrays(labels, message):
    with pytest.raises(DataError, match=message):
        ArraySource(np.zeros((3, 5, 4, 3), np.uint8), labels, num_classes=3)


def test_fake_is_as_long_as_imagenet_and_a_function_of_the_index():
    train, validation = open_source("fake", "train"), open_source("fake", "validation")
    assert (len(train), len(validation)) == (1_281_167, 50_000)
    assert train[1_281_166] == open_source("fake", "train")[1_281_166]
    assert train.num_classes == 1000
    assert {train[i][1] for i in range(1000)} == set(range(1000))
    assert len({train[i][0] for i in range(1000)}) > 8
    assert len(open_source("fake", "train[:10]+validation[5:9]")) == 14
    for split in ("test", "train[3:3]"):
        with pytest.raises(DataError, match="fake"):
            open_source("fake", split)


def test_fake_images_resemble_photographs():
    source = FakeSource(16, num_classes=5, image_size=500)
    images = [pixels(image) for image, _ in source]
    assert all(max(image.shape[:2]) == 500 for image in images)
    assert len({image.shape for image in images}) > 2
    assert 60_000 < np.mean([len(image) for image, _ in source]) < 160_000
    assert all(20 < image.std() < 90 for image in images)


def test_importing_does_not_import_tensorflow():
    code = (
        "import sys, inception.data.sources, inception.data.prepare;"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'tensorflow_datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
