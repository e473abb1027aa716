"""Files of image folders that cannot be decoded, and folders in buckets."""

import inception  # noqa: F401, I001 (sets XLA's flags first)

import logging
import os
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from inception.data import DataError
from inception.data.decode import BadImage
from inception.data.folder import FolderSource, check_files
from inception.data.sources import open_source
from tests.data.folders import encoded, write


def test_files_are_listed_and_not_opened(root, monkeypatch):
    write(root / "train/bee/bad.jpg", b"")
    (root / "train/bee/link.jpg").symlink_to(root / "nowhere.jpg")
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr(os, "open", None)
    assert len(FolderSource(root, "train")) == 6


def test_a_suffix_that_is_no_images(root, caplog):
    write(root / "train/bee/x.txt", b"hello")
    with pytest.raises(DataError, match=r"train contains 1 files .* \['bee/x\.txt'\]"):
        FolderSource(root, "train")
    with caplog.at_level(logging.WARNING):
        source = open_source("folder", "train", str(root), on_bad_record="skip")
    assert "bee/x.txt" in caplog.text
    assert [label for _, label in source] == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.jpg", b"", "file of 0 bytes"),
        ("x.jpg", b"GIF89a" + bytes(100), "file of 106 bytes"),
        ("x.jpg", encoded(".jpg")[:-200], "JPEG of"),
        ("x.jpg", encoded(".jpg")[:-400] + bytes(20_000), "JPEG of"),
        ("x.png", encoded(".png")[:-2000], "file of"),
        ("x.webp", encoded(".webp")[:-20], "file of"),
    ],
)
def test_checking_finds_files_that_are_no_images(root, name, content, problem):
    write(root / "train/bee" / name, content)
    (line,) = check_files(FolderSource(root, "train"))
    assert line.startswith(f"{root}/train/bee/{name}: ")
    assert problem in line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("png.JPEG", encoded(".png")),  # imagenet2012 has one
        ("longer.jpg", encoded(".jpg") + bytes(500)),
        ("motion.jpg", encoded(".jpg") + bytes(20_000)),  # as phones append a film to a photograph
    ],
)
def test_checking_accepts_wrong_suffixes_and_bytes_after_the_end(root, name, content):
    write(root / "train/bee" / name, content)
    assert check_files(FolderSource(root, "train")) == []


def test_checking_finds_what_decoding_refuses(root):
    """A PNG that begins and ends like one; an image that is too large, of any kind."""
    png = bytearray(encoded(".png"))
    png[len(png) // 2] ^= 1
    write(root / "train/bee/x.png", bytes(png))
    source = FolderSource(root, "train")
    (line,) = check_files(source)
    assert line.startswith(f"{root}/train/bee/x.png: file of")
    lines = check_files(source, max_pixels=120 * 100 - 1)
    assert len(lines) == 5
    assert all("max_pixels=11,999" in line for line in lines if "x.png" not in line)


def test_checking_finds_every_file(root):
    for i in range(300):
        write(root / f"train/ant/{i:03}.jpg", b"not an image")
    problems = check_files(FolderSource(root, "train"))
    assert [Path(line.split(":")[0]).name for line in problems] == [
        f"{i:03}.jpg" for i in range(300)
    ]


def test_a_file_that_cannot_be_read(root):
    (root / "train/bee/link.jpg").symlink_to(root / "nowhere.jpg")
    source = FolderSource(root, "train")
    (line,) = check_files(source)
    assert line.startswith(f"{root}/train/bee/link.jpg: ")
    assert "No such file" in line
    (root / "train/ant/c.PNG").unlink()
    with pytest.raises(BadImage, match="No such file"):
        source[0]


# Buckets.


class Bucket(MemoryFileSystem):
    """Stands in for gcsfs: the same calls, without a network."""

    protocol = ("gcs", "gs")
    store: dict = {}  # noqa: RUF012 (fsspec's own form)
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs:/").removeprefix("gcs:/"))


@pytest.fixture
def bucket(root, monkeypatch):
    """The files of `root` at gs://bucket/data."""
    monkeypatch.setitem(_registry, "gcs", Bucket)
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
    from etils.epath import backend

    backend.fsspec_backend._get_filesystem.cache_clear()
    fsspec.filesystem("gcs").put(f"{root}/", "/bucket/data/", recursive=True)
    yield "gs://bucket/data"
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_a_bucket_is_read_as_a_folder_is(root, bucket):
    for split in ("train", "validation"):
        local, remote = FolderSource(root, split), FolderSource(bucket, split)
        assert remote.class_names == local.class_names
        assert list(remote) == list(local)
    assert remote.name(0) == "gs://bucket/data/val/zebra/e.jpeg"
    assert check_files(remote) == []


def test_bad_files_of_a_bucket(bucket):
    source = FolderSource(bucket, "train")
    files = fsspec.filesystem("gcs")
    files.pipe("/bucket/data/train/ant/c.PNG", b"")
    files.rm("/bucket/data/train/bee/d.WebP")
    first, second = check_files(source)
    assert first.startswith("gs://bucket/data/train/ant/c.PNG: file of 0 bytes")
    assert second.startswith("gs://bucket/data/train/bee/d.WebP: ")
    with pytest.raises(BadImage, match="cannot be read"):
        source[1]


def test_buckets_that_are_not_there(bucket):
    with pytest.raises(DataError, match=f"{bucket}' has no folder test"):
        FolderSource(bucket, "test")
    with pytest.raises(DataError, match="gs://elsewhere"):
        FolderSource("gs://elsewhere", "train")
    with pytest.raises(DataError, match="ftp://host/data"):
        FolderSource("ftp://host/data", "train")
