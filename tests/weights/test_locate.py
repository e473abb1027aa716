"""From a name to weights: what is on this machine is used, the rest is downloaded once."""

import dataclasses
import hashlib
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from inception.errors import UserError
from inception.weights import WeightsError, load_any, locate, registry
from inception.weights.__main__ import main
from inception.weights.registry import REGISTRY
from tests.loopback import BODY, publish, whole
from tests.weight_files import keras_shapes, write_hdf5

SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory):
    """Keras's file of the whole network with two classes, which takes no room."""
    return write_hdf5(tmp_path_factory.mktemp("keras") / "w.h5", keras_shapes(2)).read_bytes()


def test_a_name_is_loaded_and_the_second_time_without_another_library(
    web, monkeypatch, hdf5, tmp_path
):
    offered = publish(monkeypatch, web, hdf5)
    first = load_any("keras")
    assert (first.source, first.sha256) == ("keras", offered.sha256)
    assert first.model.num_classes == 2
    monkeypatch.setitem(sys.modules, "h5py", None)
    (original,) = (tmp_path / "cache" / "weights").glob("*.h5")
    original.unlink()
    second = load_any("keras")
    assert len(web.requests) == 1
    assert dataclasses.replace(second, variables={}) == dataclasses.replace(first, variables={})
    mean = second.variables["batch_stats"]["Conv2d_1a_3x3"]["bn"]["mean"]
    np.testing.assert_array_equal(mean, np.zeros(32, np.float32))


def test_an_address_with_its_digest_is_loaded(web, hdf5):
    web.routes["/w.h5"] = whole(hdf5)
    digest = hashlib.sha256(hdf5).hexdigest()
    assert load_any(f"{web.url('/w.h5')}#sha256={digest}").source == "keras"


def test_what_a_name_tells_of_the_source_belongs_to_what_is_kept(web, monkeypatch):
    """The tag in a file's or repository's name decides on the scaling where nothing else does."""
    taken = []
    monkeypatch.setattr(locate.converted, "keep", lambda key, source, _: taken.append(source))
    for path in ("/x.pth", "/a/x.pth", "/tf_inception_v3.pth"):
        web.routes[path] = whole()
        load_any(f"{web.url(path)}#sha256={SHA256}")
    publish(monkeypatch, web, BODY)
    load_any("keras")
    assert taken[0] == taken[1] != taken[2]
    assert taken[3] == "keras"


def test_a_path_that_exists_wins_over_a_name(web, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert locate.named("keras") is REGISTRY["keras"]
    (tmp_path / "keras").mkdir()
    assert locate.named("keras") is None
    with pytest.raises(WeightsError, match="a directory without"):
        load_any("keras")
    assert web.requests == []


@pytest.mark.parametrize("name", ["torchvison", "runs/torchvision", "kerras"])
def test_an_unknown_name_lists_the_nearest(name):
    with pytest.raises(WeightsError) as raised:
        load_any(name)
    for said in (name, *registry.nearest(name), "python -m inception.weights list"):
        assert said in str(raised.value)
    assert registry.nearest(name)


@pytest.mark.parametrize("command", ["verify", "import"])
def test_commands_that_take_a_file_list_the_nearest_names_too(command, tmp_path):
    output = [f"--output={tmp_path}"] if command == "import" else []
    with pytest.raises(WeightsError, match=r"torchvison not found.*such as torchvision"):
        main([command, "auto", "torchvison", *output])
    (tmp_path / "torchvison").mkdir()
    folder = str(tmp_path / "torchvison")
    with locate.file_of(folder) as (path, _):
        assert str(path) == folder


@pytest.mark.parametrize(
    ("variable", "folder"), [("TORCH_HOME", "hub/checkpoints"), ("KERAS_HOME", "models")]
)
def test_a_file_of_another_librarys_cache_is_used_and_nothing_is_written(
    web, monkeypatch, tmp_path, capsys, variable, folder
):
    offered = publish(monkeypatch, web, BODY)
    monkeypatch.setenv(variable, str(tmp_path / "theirs"))
    place = tmp_path / "theirs" / folder / offered.file
    place.parent.mkdir(parents=True)
    place.write_bytes(BODY)
    assert locate.locate(offered) == locate.where(offered) == place
    assert list(place.parent.iterdir()) == [place]
    assert not (tmp_path / "cache").exists()
    place.write_bytes(BODY[::-1])
    assert locate.locate(offered).read_bytes() == BODY
    assert place.read_bytes() == BODY[::-1]
    assert f"{place} is not used" in capsys.readouterr().err


def test_a_file_put_there_by_hand_is_used_without_a_network(web, monkeypatch):
    offered = publish(monkeypatch, web, BODY)
    monkeypatch.setenv("INCEPTION_OFFLINE", "1")
    with pytest.raises(WeightsError) as raised:
        locate.locate(offered)
    place = Path(str(raised.value).partition(" and put it at ")[2].partition(", or name")[0])
    place.parent.mkdir(parents=True)
    place.write_bytes(BODY)
    assert locate.locate(offered) == place
    assert list(place.parent.iterdir()) == [place]  # a cache that is complete is not written to


def test_what_nobody_has_published_a_digest_of_may_not_change(web, monkeypatch, tmp_path, capsys):
    offered = publish(monkeypatch, web, BODY, "slim", sha256="", size=0)
    path = locate.locate(offered)
    assert SHA256 in capsys.readouterr().err
    path.write_bytes(BODY[::-1])
    assert locate.where(offered) is None
    path.with_name(f"{path.name}.sha256").unlink()
    assert locate.where(offered) == path  # put there by hand, so its owner trusts it
    assert (
        hashlib.sha256(BODY[::-1]).hexdigest() in path.with_name(f"{path.name}.sha256").read_text()
    )


def test_the_license_is_said_at_the_download_alone(web, monkeypatch, capsys):
    offered = publish(monkeypatch, web, BODY)
    locate.locate(offered)
    assert offered.license_url in capsys.readouterr().err
    locate.locate(offered)
    assert offered.license_url not in capsys.readouterr().err


def _tar(members: dict[str, bytes], link: str = "") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(entry)
    return content.getvalue()


@pytest.mark.parametrize(
    "files",
    [
        {"inception_v3.ckpt": b"1"},
        {"inception_v3.ckpt.index": b"1", "inception_v3.ckpt.data-00000-of-00001": b"2"},
    ],
    ids=["V1", "V2"],
)
def test_of_an_archive_only_the_checkpoint_is_unpacked(web, monkeypatch, files):
    more = {"../evil": b"3", "inception_v3.ckpt.py": b"4", "README": b"5"}
    inside = {f"a/../b/{name}": data for name, data in files.items()} | more
    offered = publish(monkeypatch, web, _tar(inside, link="x/inception_v3.ckpt.index-"), "slim")
    with locate.opened(offered) as path:
        assert path.name == "inception_v3.ckpt"
        found = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        assert found == files
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_tar({"other.ckpt": b"1"}), "does not hold inception_v3.ckpt; it has other.ckpt"),
        (_tar({}, link="inception_v3.ckpt"), "does not hold"),
        (_tar({"inception_v3.ckpt": BODY})[:-5000], "cannot be unpacked"),
        (b"no archive", "cannot be unpacked"),
    ],
)
def test_a_bad_archive_is_refused(web, monkeypatch, content, said):
    offered = publish(monkeypatch, web, content, "slim")
    with pytest.raises(WeightsError, match=said), locate.opened(offered):
        pass


def test_an_archive_that_unpacks_to_too_much_is_refused(web, monkeypatch):
    monkeypatch.setattr(locate, "MAX_BYTES", 100)
    offered = publish(monkeypatch, web, _tar({"inception_v3.ckpt": bytes(101)}), "slim")
    with pytest.raises(WeightsError, match="more than 100 bytes"), locate.opened(offered):
        pass


def test_a_name_can_be_a_commands_file(web, monkeypatch):
    offered = publish(monkeypatch, web, BODY)
    with locate.file_of("keras") as (path, source):
        assert (path.read_bytes(), source) == (BODY, offered.source)
    with locate.file_of("keras", "slim") as (_, source):
        assert source == "slim"
    with locate.file_of("some/file.h5") as (path, source):
        assert (path, source) == (Path("some/file.h5"), "auto")
    with (
        pytest.raises(UserError, match="is in a bucket"),
        locate.file_of("gs://bucket/file.h5"),
    ):
        pass
