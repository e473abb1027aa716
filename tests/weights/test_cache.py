"""Where files are looked for: by digest, never written to elsewhere than in our cache."""

import hashlib
from pathlib import Path

import pytest

from inception.weights import WeightsError, cache
from inception.weights.cache import File
from inception.weights.registry import REGISTRY

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"INCEPTION_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/inception"),
        ({}, "{home}/.cache/inception"),
        ({"INCEPTION_CACHE": "~/c"}, "{home}/c"),
    ],
)
def test_our_folder(web, monkeypatch, tmp_path, variables, expected):
    monkeypatch.delenv("INCEPTION_CACHE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache.folder()) == expected.format(home=tmp_path / "home")


def test_a_bucket_is_not_taken_for_a_folder(web, monkeypatch):
    monkeypatch.setenv("INCEPTION_CACHE", "gs://bucket/cache")
    with pytest.raises(WeightsError, match="gs://bucket/cache is not a folder"):
        cache.folder()


def test_without_a_home_a_folder_must_be_named(web, monkeypatch, tmp_path):
    """In a container whose user the system does not know, `Path.home()` raises RuntimeError."""

    def no_home(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache.folder() == tmp_path / "cache"
    assert list(cache.others(REGISTRY["keras"])) == []
    assert cache.hugging_face() is None
    monkeypatch.delenv("INCEPTION_CACHE")
    with pytest.raises(WeightsError, match="INCEPTION_CACHE"):
        cache.folder()


@pytest.mark.parametrize(
    ("name", "variables", "expected"),
    [
        ("torchvision", {}, "{home}/.cache/torch/hub/checkpoints/inception_v3_google-0cc3c7bd.pth"),
        ("torchvision", {"XDG_CACHE_HOME": "/x"}, "/x/torch/hub/checkpoints/"),
        ("torchvision", {"TORCH_HOME": "/t"}, "/t/hub/checkpoints/"),
        ("fid", {}, "/hub/checkpoints/pt_inception-2015-12-05-6726825d.pth"),
        ("fid", {}, "/hub/checkpoints/weights-inception-2015-12-05-6726825d.pth"),
        ("keras", {}, "{home}/.keras/models/inception_v3_weights_tf_dim_ordering_tf_kernels.h5"),
        ("keras", {"KERAS_HOME": "/k"}, "/k/models/"),
    ],
)
def test_places_of_other_libraries(web, monkeypatch, tmp_path, name, variables, expected):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    places = map(str, cache.others(REGISTRY[name]))
    assert any(expected.format(home=tmp_path / "home") in place for place in places)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
    ],
)
def test_the_place_of_hugging_face(web, monkeypatch, variables, expected):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert str(cache.hugging_face()) == expected


def test_a_name_is_not_enough(tmp_path, capsys):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    file = File(ours, size=len(CONTENT), sha256=SHA256)
    assert cache.find(file, (theirs,)) is None
    theirs.write_bytes(CONTENT[::-1])
    assert cache.find(file, (theirs,)) is None
    theirs.write_bytes(CONTENT + b"more")
    assert cache.find(file, (theirs,)) is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(str(theirs) in line for line in said)
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in said[0]
    theirs.write_bytes(CONTENT)
    assert cache.find(file, (theirs,)) == theirs
    ours.write_bytes(CONTENT)
    assert cache.find(file, (theirs,)) == ours


def test_what_was_recorded_is_remembered(tmp_path):
    path = tmp_path / "w.bin"
    assert cache.recorded(path) == ""
    cache.record(path, SHA256)
    assert cache.recorded(path) == SHA256
    assert (tmp_path / "w.bin.sha256").read_text() == f"{SHA256}  w.bin\n"  # as sha256sum -c reads


def test_digests_are_those_of_sha256sum_md5sum_and_git(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"hello\n")
    assert cache.digest(path, "git") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert cache.digest(path, "md5") == "b1946ac92492d2347c6235b4d2611184"
    assert cache.digest(path)[:8] == "5891b5b5"
