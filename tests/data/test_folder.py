import inception  # noqa: F401, I001 (sets XLA's flags first)

import os
from pathlib import Path

import pytest
from PIL import Image

from inception.data import DataError
from inception.data.folder import FolderSource, check_files, images_below
from inception.data.sources import open_source
from tests.data.folders import PHOTOGRAPH, encoded, write


def test_reads_files_in_sorted_order(root):
    source = FolderSource(root, "train")
    assert source.class_names == ("ant", "bee", "zebra")
    assert (source.num_classes, source.label_width, len(source)) == (3, 0, 4)
    names = [os.path.relpath(source.name(i), root) for i in range(4)]
    assert names == [
        "train/ant/c.PNG",
        "train/bee/d.WebP",
        "train/zebra/a.jpg",
        "train/zebra/b.JPEG",
    ]
    assert [label for _, label in source] == [0, 1, 2, 2]
    assert [image for image, _ in source] == [(root / name).read_bytes() for name in names]


def test_labels_are_known_without_the_files(root):
    source = FolderSource(root, "train")
    expected = [source[index][1] for index in range(4)]
    for index in range(4):
        Path(source.name(index)).unlink()
    assert source.labels().tolist() == expected == [0, 1, 2, 2]


def test_validation_has_the_numbers_of_the_training_classes(root):
    source = open_source("folder", "validation", str(root))
    assert source.class_names == ("ant", "bee", "zebra")
    assert [label for _, label in FolderSource(root, "val")] == [2]
    assert len(source) == 1


def test_a_class_that_training_lacks(root):
    write(root / "val/yak/f.jpg", encoded(".jpg"))
    with pytest.raises(DataError, match=r"lacks.*'yak'"):
        FolderSource(root, "validation")


def test_a_class_without_training_images(root):
    (root / "train/cat").mkdir()
    with pytest.raises(DataError, match=r"1 class folders .* \['cat'\]"):
        FolderSource(root, "train")
    assert FolderSource(root, "val").num_classes == 4


def test_evaluation_without_a_training_folder(tmp_path):
    write(tmp_path / "val/dog/f.jpg", encoded(".jpg"))
    assert FolderSource(tmp_path, "validation").class_names == ("dog",)


@pytest.mark.parametrize("split", ["train", "val"])
def test_hidden_files_and_those_of_file_managers_are_ignored(root, split):
    count = len(FolderSource(root, split))
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", "ehthumbs.db"):
        write(root / split / name, b"x")
        write(root / split / "zebra" / name, b"x")
    for name in (".cache", "__MACOSX", "@eaDir"):
        write(root / split / name / "x.jpg", b"x")
        write(root / split / "zebra" / name / "x.jpg", b"x")
    assert len(FolderSource(root, split)) == count


def test_whatever_decode_reads_is_an_image(root):
    for name in ("x.bmp", "x.TIF", "x.tiff", "x.gif", "x.ppm"):
        Image.fromarray(PHOTOGRAPH).save(root / "train/bee" / name)
    source = FolderSource(root, "train")
    assert len(source) == 4 + 5
    assert check_files(source) == []


# Layouts that are not ROOT/train/<class>/FILE.


def test_images_one_folder_deeper(tmp_path):
    """Tiny-ImageNet's training images; nor are inner folders left out with "skip"."""
    for name in ("n01", "n02"):
        write(tmp_path / f"train/{name}/images/{name}_0.JPEG", encoded(".jpg"))
        write(tmp_path / f"train/{name}/{name}_boxes.txt", b"0 0 1 1")
    for on_bad_record in ("fail", "skip"):
        with pytest.raises(DataError) as raised:
            FolderSource(tmp_path, "train", on_bad_record=on_bad_record)
        assert "2 folders of images inside its class folders" in str(raised.value)
        assert "n01/images/n01_0.JPEG" in str(raised.value)
        assert "Remove" not in str(raised.value)


def test_a_folder_that_is_called_like_an_image_is_a_folder(root, tmp_path_factory):
    write(root / "val/zebra/holiday.png/1.jpg", encoded(".jpg"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "2.jpg", encoded(".jpg"))
    (root / "val/zebra/link.png").symlink_to(elsewhere)
    (root / "val/zebra/loop.png").symlink_to("loop.png")
    found = [os.path.relpath(path, root / "val/zebra") for path in images_below(str(root / "val"))]
    expected = ["e.jpeg", "holiday.png/1.jpg", "link.png/2.jpg", "loop.png"]
    assert found == expected
    with pytest.raises(DataError, match=r"2 folders of images inside .*holiday\.png/1\.jpg"):
        FolderSource(root, "val")
    (root / "train/ant/x.png").mkdir()
    with pytest.raises(DataError, match=r"not images, e\.g\. \['ant/x\.png'\]"):
        FolderSource(root, "train")
    assert len(FolderSource(root, "train", on_bad_record="skip")) == 4


def test_inner_folders_without_images_are_other_files(root):
    write(root / "train/bee/notes/x.txt", b"hello")
    with pytest.raises(DataError, match=r"not images, e\.g\. \['bee/notes'\]"):
        FolderSource(root, "train")
    assert len(FolderSource(root, "train", on_bad_record="skip")) == 4


def test_validation_images_with_a_list_of_their_classes(root):
    """Tiny-ImageNet's validation images."""
    (root / "val/zebra").rename(root / "val/images")
    write(root / "val/val_annotations.txt", b"e.jpeg\tzebra\n")
    with pytest.raises(DataError) as raised:
        FolderSource(root, "validation")
    assert "lacks, e.g. ['images']" in str(raised.value)
    assert "val/<class>/; " in str(raised.value)
    assert "val_annotations.txt may list the class of each image" in str(raised.value)


def test_a_data_dir_too_high_or_too_deep(root):
    inner = root / "inner"
    inner.mkdir()
    for split in ("train", "val"):
        (root / split).rename(inner / split)
    for wrong in (root, inner / "train", inner / "val"):
        with pytest.raises(DataError, match=f"Did you mean data_dir={inner}\\?"):
            FolderSource(wrong, "train")


def test_what_was_looked_at_is_said(root):
    for file in root.glob("train/*/*"):
        file.rename(root / "train" / file.name)
    with pytest.raises(DataError) as raised:
        FolderSource(root, "train")
    for part in (
        "3 folders",
        "'ant'",
        "4 images are in no class folder",
        "'a.jpg'",
        "train/<class>/",
    ):
        assert part in str(raised.value)


def test_names_that_look_alike(root):
    """MacOS writes an accent as a character of its own."""
    write(root / "train/caf\N{LATIN SMALL LETTER E WITH ACUTE}/a.jpg", encoded(".jpg"))
    write(root / "val/cafe\N{COMBINING ACUTE ACCENT}/a.jpg", encoded(".jpg"))
    with pytest.raises(DataError, match=r"'cafe\\u0301' .* 'caf\\xe9' look alike .*NFC"):
        FolderSource(root, "val")
    write(root / "train/cafe\N{COMBINING ACUTE ACCENT}/a.jpg", encoded(".jpg"))
    with pytest.raises(DataError, match=r"look alike"):
        FolderSource(root, "train")


# Links.


def test_links_that_lead_upwards_are_not_classes(root):
    for target in ("..", "../..", "."):
        (root / "train" / f"up{len(target)}").symlink_to(target)
    (root / "train/ant/up").symlink_to("../..")
    assert FolderSource(root, "train").class_names == ("ant", "bee", "zebra")


def test_links_to_class_folders_elsewhere(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "yak/a.jpg", encoded(".jpg"))
    (root / "train/yak").symlink_to(elsewhere / "yak")
    assert FolderSource(root, "train").class_names == ("ant", "bee", "yak", "zebra")
    for target in ("yak", elsewhere / "yak"):
        (root / "train/ox").symlink_to(target)
        with pytest.raises(DataError, match=r"'(yak|ox)' and '(yak|ox)' are one folder"):
            FolderSource(root, "train")
        (root / "train/ox").unlink()


def test_each_real_folder_is_walked_once(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "deep/a.jpg", encoded(".jpg"))
    (elsewhere / "deep/back").symlink_to(root / "train")
    expected = list(images_below(f"{root}/train"))
    for place, target in (
        ("up", ".."),
        ("ant/self", "."),
        ("ant/zebra", "../zebra"),
        ("bee/other", elsewhere),
        ("bee/other2", elsewhere / "deep"),
        ("bee/nowhere", root / "nowhere"),
    ):
        (root / "train" / place).symlink_to(target)
    found = [*images_below(f"{root}/train")]
    assert len(found) == len(expected) + 1 == 5
    assert len({os.path.realpath(path) for path in found}) == 5
    assert f"{root}/train/bee/other/deep/a.jpg" in found
    assert next(images_below(f"{root}/train/up/train/bee")).endswith("d.WebP")


# Folders.


def test_folders_that_are_not_there(root):
    with pytest.raises(DataError, match=r"folder test, only .*'train', 'val'"):
        FolderSource(root, "test")
    with pytest.raises(DataError, match=r"nowhere' .*DATA_DIR/train/<class>"):
        FolderSource(root / "nowhere", "train")
    with pytest.raises(DataError, match=r"'train\[:10%\]'"):
        FolderSource(root, "train[:10%]")
    with pytest.raises(DataError, match="data_dir"):
        open_source("folder", "train")


def test_images_outside_class_folders(tmp_path):
    write(tmp_path / "train/a.jpg", encoded(".jpg"))
    with pytest.raises(DataError, match=r"no images .* in class folders"):
        FolderSource(tmp_path, "train")
    (tmp_path / "train/ant").mkdir()
    with pytest.raises(DataError, match=r"no images .* in class folders"):
        FolderSource(tmp_path, "train")
