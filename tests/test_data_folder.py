import inception  # noqa: F401, I001 (sets XLA's flags first)

import logging
import os

import cv2
import numpy as np
import pytest
import skimage.data

from configs import base
from inception.config import load
from inception.data import DataError, DataNotFound
from inception.data.decode import BadImage
from inception.data.folder import FolderSource
from inception.data.sources import open_source
from inception.errors import UserError

PHOTOGRAPH = np.ascontiguousarray(skimage.data.astronaut()[:100, :120, ::-1])


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, PHOTOGRAPH)[1].tobytes()


def write(path, content: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "train/zebra/b.JPEG", encoded(".jpg"))
    write(tmp_path / "train/zebra/a.jpg", encoded(".jpg"))
    write(tmp_path / "train/ant/c.PNG", encoded(".png"))
    write(tmp_path / "train/bee/d.WebP", encoded(".webp"))
    write(tmp_path / "val/zebra/e.jpeg", encoded(".jpg"))
    return tmp_path


def test_reads_files_in_sorted_order(root):
    source = FolderSource(root, "train")
    assert source.class_names == ("ant", "bee", "zebra")
    assert (source.num_classes, source.label_width, len(source)) == (3, 0, 4)
    names = [os.path.relpath(source.describe(i), root) for i in range(4)]
    assert names == [
        "train/ant/c.PNG",
        "train/bee/d.WebP",
        "train/zebra/a.jpg",
        "train/zebra/b.JPEG",
    ]
    assert [label for _, label in source] == [0, 1, 2, 2]
    assert [image for image, _ in source] == [(root / name).read_bytes() for name in names]


def test_validation_has_the_numbers_of_the_training_classes(root):
    config = base.get_config()
    config.dataset, config.data_dir = "folder", str(root)
    source = open_source(config, config.eval.split)
    assert config.eval.split == "validation"
    assert source.class_names == ("ant", "bee", "zebra")
    assert [label for _, label in FolderSource(root, "val")] == [2]
    assert len(source) == 1


def test_a_class_that_training_lacks(root):
    write(root / "val/yak/f.jpg", encoded(".jpg"))
    with pytest.raises(DataError, match=r"lacks.*'yak'"):
        FolderSource(root, "validation")


def test_a_class_without_training_images(root):
    (root / "train/cat").mkdir()
    with pytest.raises(DataError, match=r"1 class folders are empty, as \['cat'\]"):
        FolderSource(root, "train")
    assert FolderSource(root, "val").num_classes == 4


def test_evaluation_without_a_training_folder(tmp_path):
    write(tmp_path / "val/dog/f.jpg", encoded(".jpg"))
    assert FolderSource(tmp_path, "validation").class_names == ("dog",)


def test_hidden_files_are_ignored(root):
    write(root / "train/ant/.DS_Store", b"x")
    write(root / "train/.cache/x.jpg", b"x")
    assert len(FolderSource(root, "train")) == 4


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.jpg", b"", "empty"),
        ("x.jpg", b"GIF89a" + bytes(100), "neither JPEG nor PNG nor WebP"),
        ("x.txt", b"hello", "not one of"),
        ("x.jpg", encoded(".jpg")[:-200], "JPEG without an end"),
        ("x.png", encoded(".png")[:-20], "PNG without an end"),
        ("x.webp", encoded(".webp")[:-20], "WebP of"),
        ("deeper.jpg/y.jpg", encoded(".jpg"), "directory"),
    ],
)
def test_a_file_that_is_no_image_stops_the_run(root, name, content, problem):
    write(root / "train/bee" / name, content)
    with pytest.raises(
        DataError, match=rf"1 of 5 files(.|\n)*bee/{name.split('/')[0]}: .*{problem}"
    ):
        FolderSource(root, "train")


def test_a_wrong_suffix_and_bytes_after_the_end_are_accepted(root):
    write(root / "train/bee/png.JPEG", encoded(".png"))  # imagenet2012 has one
    write(root / "train/bee/longer.jpg", encoded(".jpg") + bytes(500))
    assert len(FolderSource(root, "train")) == 6


def test_a_broken_link_is_listed(root):
    (root / "train/bee/link.jpg").symlink_to(root / "nowhere.jpg")
    with pytest.raises(DataError, match=r"bee/link.jpg: No such file"):
        FolderSource(root, "train")


def test_a_file_that_goes_away_during_the_run(root):
    source = FolderSource(root, "train")
    (root / "train/ant/c.PNG").unlink()
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        source[0]


def test_bytes_behind_the_end_are_no_damage(root):
    """As phones append a film to a photograph."""
    write(root / "train/ant/motion.jpg", encoded(".jpg") + bytes(20_000))
    write(root / "train/ant/cut.jpg", encoded(".jpg")[:-400] + bytes(20_000))
    with pytest.raises(DataError, match=r"1 of 6 files .*\n.*cut\.jpg: JPEG without an end"):
        FolderSource(root, "train")


def test_a_folder_needs_a_name_and_a_disk():
    for data_dir, message in (("", "data_dir is empty"), ("gs://bucket/x", "mount the bucket")):
        config = load("configs/v3.py", ["dataset=folder", f"data_dir={data_dir}"])
        with pytest.raises(UserError, match=message):
            open_source(config, "train")


def test_many_bad_files_are_counted_and_the_first_are_listed(root):
    for i in range(50):
        write(root / f"train/ant/{i:02}.jpg", b"not an image")
    with pytest.raises(DataError) as raised:
        FolderSource(root, "train")
    message = str(raised.value)
    assert "50 of 54 files" in message
    assert "ant/19.jpg" in message
    assert "ant/20.jpg" not in message
    assert "and 30 more" in message


def test_bad_files_are_only_logged_where_they_are_to_be_skipped(root, caplog):
    write(root / "train/ant/bad.jpg", b"not an image")
    with caplog.at_level(logging.WARNING):
        assert len(FolderSource(root, "train", on_bad_record="skip")) == 5
    assert "ant/bad.jpg" in caplog.text


def test_bad_files_to_evaluate_on_are_found_before_training_also_with_skip(root):
    write(root / "val/ant/bad.jpg", b"not an image")
    config = load("configs/v3.py", ["dataset=folder", f"data_dir={root}", "on_bad_record=skip"])
    assert len(open_source(config, "train")) == 4
    with pytest.raises(DataError, match=r"bad\.jpg: neither JPEG"):
        open_source(config, "validation")


def test_folders_that_are_not_there(root):
    with pytest.raises(DataNotFound, match=r"no folder test \(its folders: train, val\)"):
        FolderSource(root, "test")
    with pytest.raises(DataNotFound, match=r"nowhere is not there; .*DATA_DIR/train/<class>"):
        FolderSource(root / "nowhere", "train")
    with pytest.raises(DataError, match="must be a folder's name"):
        FolderSource(root, "train[:10%]")


def test_images_outside_class_folders(tmp_path):
    write(tmp_path / "train/a.jpg", encoded(".jpg"))
    with pytest.raises(DataError, match="no class folders"):
        FolderSource(tmp_path, "train")
    (tmp_path / "train/ant").mkdir()
    with pytest.raises(DataError, match="hold no images"):
        FolderSource(tmp_path, "train")
