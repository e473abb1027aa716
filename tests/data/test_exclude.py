"""Images left out of an evaluation: by name, by ImageNet's number, and never silently none."""

import numpy as np
import pytest

from inception.data import DataError
from inception.data.exclude import Excluded
from inception.data.folder import FolderSource
from inception.data.prepare import prepare
from inception.data.preprocessing import Preprocessing
from inception.data.records import RecordSource
from inception.data.sources import ArraySource, FakeSource
from inception.data.stream import eval_stream
from tests import data_builders  # noqa: F401 (registers the tests' data sets)
from tests.data_builders import NUM_TRAIN, NUM_VALIDATION, photograph


@pytest.fixture
def listed(tmp_path):
    """Makes a list of images and returns its path."""

    def make(*lines: object) -> str:
        file = tmp_path / "excluded.txt"
        file.write_text("".join(f"{line}\n" for line in lines))
        return str(file)

    return make


def test_names_with_and_without_suffix_and_numbers(listed):
    excluded = Excluded(listed("# comment", "", "36", "ILSVRC2012_val_00000007.JPEG", "cat_3"))
    assert len(excluded) == 3
    assert "ILSVRC2012_val_00000036.JPEG" in excluded
    assert "ILSVRC2012_val_00000007.JPEG" in excluded
    assert "cat_3.png" in excluded
    assert "ILSVRC2012_val_00000003.JPEG" not in excluded


def test_files_of_one_name_in_several_folders_are_told_apart(listed):
    one, every = Excluded(listed("china/1.webp")), Excluded(listed("1.webp"))
    assert ("/data/china/1.webp" in one, "coffee/1.webp" in one) == (True, False)
    assert ("/data/china/1.webp" in every, "coffee/1.webp" in every) == (True, True)


def test_accents_in_either_unicode_form(listed):
    one, two = "caf\u00e9/a.jpg", "cafe\u0301/a.jpg"
    assert one != two
    for line in (one, two):
        assert [name in Excluded(listed(line)) for name in (one, two, "cafe/a.jpg")] == [1, 1, 0]


def test_only_the_last_suffix_may_be_missing(listed):
    excluded = Excluded(listed("img.v2", "0005"))
    assert ("img.v2.JPEG" in excluded, "img.JPEG" in excluded) == (True, False)
    assert ("0005.JPEG" in excluded, "ILSVRC2012_val_00000005.JPEG" in excluded) == (True, True)


def test_every_source_knows_what_its_images_are_called(tmp_path):
    prepare("test_photos", str(tmp_path))
    records = RecordSource("test_photos", "validation", str(tmp_path))
    names = {records.name(index) for index in range(NUM_VALIDATION)}
    assert names == {f"{NUM_TRAIN + index}.JPEG" for index in range(NUM_VALIDATION)}
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "a.jpg").write_bytes(photograph(0)[0])
    assert FolderSource(tmp_path, "val").name(0) == f"{tmp_path}/val/cat/a.jpg"
    assert ArraySource([b""], [0]).name(0) == "image 0"
    assert FakeSource(3).name(2) == "ILSVRC2012_val_00000003.JPEG"


def test_the_stream_leaves_them_out_and_still_says_which(listed):
    batches = list(
        eval_stream(
            FakeSource(10, num_classes=3, image_size=20),
            Preprocessing(16),
            batch_size=4,
            exclude=Excluded(listed(2, 5, 6, 99)),
        )
    )
    example, mask = (
        np.concatenate([batch[name] for batch in batches]) for name in ("example", "mask")
    )
    assert example.tolist() == [*range(10), -1, -1]
    assert example[mask].tolist() == [0, 2, 3, 6, 7, 8, 9]


def test_a_list_that_leaves_out_nothing_is_refused(listed):
    source = FakeSource(10)
    with pytest.raises(DataError, match=r"excluded\.txt: none of its 1 .*_00000001\.JPEG'"):
        Excluded(listed("11")).check(source)
    with pytest.raises(DataError, match="'image 0'"):
        Excluded(listed("1")).check(ArraySource(np.zeros((1, 8, 8, 3), np.uint8), [0]))
    Excluded(listed("10")).check(source)


def test_a_list_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"/none\.txt"):
        Excluded(str(tmp_path / "none.txt"))
    with pytest.raises(DataError, match="~nobody-of-this-name"):
        Excluded("~nobody-of-this-name/none.txt")
