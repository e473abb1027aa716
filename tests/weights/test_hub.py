"""Repositories on a hub of our own: commits, digests, Hugging Face's cache, and what goes wrong."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from inception import Inception, Preprocessing
from inception.weights import Pretrained, WeightsError, hub, load_any, locate, registry, save
from inception.weights.download import DownloadError
from tests.loopback import repository, send, sibling, status, whole

COMMIT, NEXT = "a" * 40, "b" * 40
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000, "README.md": b"# card"}


@pytest.fixture
def serve(web, monkeypatch):
    """Puts a repository me/mine on the server, which becomes the hub."""
    monkeypatch.setenv("HF_ENDPOINT", web.url())

    def make(files: dict[str, bytes] = FILES, commit: str = COMMIT, revision: str = "main"):
        repository(web, files, commit, revision)

    return make


def _found(address: str = "hf-hub:me/mine") -> registry.Published:
    published = registry.find(address)
    assert published
    return published


def test_the_files_that_are_needed_arrive_by_commit_and_stay(web, serve, tmp_path):
    serve()
    path = locate.locate(_found())
    assert path == tmp_path / "cache" / "hub" / "me--mine" / COMMIT / "model.safetensors"
    assert path.read_bytes() == FILES["model.safetensors"]
    assert path.with_name("config.json").read_bytes() == b"{}"
    assert not path.with_name("README.md").exists()
    asked = len(web.requests)
    assert locate.locate(_found()) == locate.where(_found()) == path
    assert len(web.requests) == asked
    assert web.paths()[0] == "/api/models/me/mine/revision/main?blobs=true"


def test_a_branch_that_moved_is_followed_when_one_asks(serve, monkeypatch):
    serve()
    locate.locate(_found())
    serve({**FILES, "model.safetensors": b"newer"}, NEXT)
    assert locate.locate(_found()).parent.name == COMMIT
    assert locate.locate(_found(), refresh=True).read_bytes() == b"newer"
    monkeypatch.setenv("INCEPTION_OFFLINE", "1")
    assert locate.locate(_found(), refresh=True).parent.name == NEXT


def test_a_revision_is_asked_for_by_its_name(web, serve):
    serve(revision="refs%2Fpr%2F1")
    assert locate.locate(_found("hf-hub:me/mine@refs/pr/1")).exists()


def test_one_flipped_bit_of_either_kind_of_file_is_refused(web, serve):
    for name in ("model.safetensors", "config.json"):
        serve()
        flipped = bytes([FILES[name][0] ^ 1]) + FILES[name][1:]
        web.routes[f"/me/mine/resolve/{COMMIT}/{name}"] = whole(flipped)
        with pytest.raises(WeightsError, match="another file") as raised:
            locate.locate(_found())
        assert f"{web.url()}me/mine/tree/main" in str(raised.value)


def test_many_may_ask_for_a_repository_at_once(serve):
    """Each writes the hub's answer, which once had one scratch file for all."""
    serve()
    start = threading.Barrier(8)

    def locate_at_once(_):
        start.wait(60)
        return locate.locate(_found())

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            (path,) = set(pool.map(locate_at_once, range(8)))
        names = sorted(each.name for each in path.parent.parent.iterdir())
        assert names == [COMMIT, "main.json"]
        shutil.rmtree(path.parent.parent)


@pytest.mark.parametrize("pinned", [NEXT, NEXT.upper()])
def test_another_commit_than_the_pinned_one_is_refused(serve, tmp_path, pinned):
    serve(revision=pinned)
    with pytest.raises(DownloadError, match=f"pinned to commit {NEXT}.*{COMMIT}"):
        locate.locate(_found(f"hf-hub:me/mine@{pinned}"))
    assert not (tmp_path / "cache").exists()
    serve(commit=NEXT, revision=pinned)
    assert locate.locate(_found(f"hf-hub:me/mine@{pinned}")).parent.name == NEXT


def test_offline_the_file_and_its_digest_are_named(monkeypatch):
    monkeypatch.setenv("INCEPTION_OFFLINE", "1")
    published = registry.REGISTRY["timm/inception_v3.tv_in1k"]
    with pytest.raises(DownloadError) as raised:
        locate.locate(published)
    for part in (
        *(published.file, published.sha256, hub.address(published)),
        "is not contacted because INCEPTION_OFFLINE is set",
    ):
        assert part in str(raised.value)


def test_a_cache_that_cannot_be_written_is_named_with_the_address(web, serve, tmp_path):
    serve()
    (tmp_path / "cache").touch()
    with pytest.raises(DownloadError, match="cannot be kept in") as raised:
        locate.locate(_found())
    assert web.url("/me/mine/tree/main") in str(raised.value)


def test_other_weights_than_the_published_ones_are_refused(serve, monkeypatch):
    serve()
    with pytest.raises(WeightsError, match=f"sha256.*{'0' * 64}"):
        locate.locate(registry.Published("x", repository="me/mine", sha256="0" * 64))


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({"weights.safetensors": b"1", "model.json": b"2", "model.safetensors": b"3"}, 0),
        ({"model.weights.h5": b"1", "config.json": b"2", "metadata.json": b"3"}, 0),
        ({"fid_inception.safetensors": b"1", "README.md": b"2"}, 0),
        ({"pytorch_model.bin": b"1", "model.safetensors": b"2"}, 1),
        ({"a.pth": b"1", "b.pth": b"2"}, "several files of weights, a.pth, b.pth"),
        ({"README.md": b"1", "folder/x.pth": b"2"}, "no file of weights"),
    ],
)
def test_the_file_of_weights_is_chosen_or_the_choice_is_explained(serve, files, chosen):
    serve(files)
    if isinstance(chosen, str):
        with pytest.raises(WeightsError, match=chosen):
            locate.locate(_found())
    else:
        assert locate.locate(_found()).name == list(files)[chosen]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(404), "answers 404"),
        (status(401), "HF_TOKEN is not set"),
        (lambda request, _: send(request, 200, b'{"sha": "main"}'), "no list of files"),
        (lambda request, _: send(request, 200, b"[]"), "no list of files"),
        (lambda request, _: send(request, 200, b"<html>"), "login page"),
    ],
)
def test_a_hub_that_does_not_tell_is_said(web, serve, answer, said):
    web.routes["/api/models/me/mine/revision/main"] = answer
    with pytest.raises(WeightsError, match=said) as raised:
        locate.locate(_found())
    assert "hf-hub:me/mine" in str(raised.value)
    assert "into a folder" in str(raised.value)


def _in_their_cache(home, damaged: bool = False) -> None:
    """As huggingface_hub lays out what it downloads."""
    root = home / ".cache" / "huggingface" / "hub" / "models--me--mine"
    for folder in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (root / folder).mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors"):
        about = sibling(name, FILES[name])
        blob = about["lfs"]["sha256"] if "lfs" in about else about["blobId"]
        (root / "blobs" / blob).write_bytes(FILES[name][::-1] if damaged else FILES[name])
        (root / "snapshots" / COMMIT / name).symlink_to(f"../../blobs/{blob}")


def test_what_hugging_faces_libraries_have_is_used_where_it_is(web, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        locate.locate(_found())
    _in_their_cache(tmp_path / "home")
    before = sorted((tmp_path / "home").rglob("*"))
    for address in ("hf-hub:me/mine", f"hf-hub:me/mine@{COMMIT}"):
        path = locate.locate(_found(address))
        assert path.is_relative_to(tmp_path / "home")
        assert path.read_bytes() == FILES["model.safetensors"]
    assert sorted((tmp_path / "home").rglob("*")) == before
    assert not (tmp_path / "cache").exists()


def test_what_they_have_of_another_commit_is_not_downloaded(web, serve, tmp_path):
    _in_their_cache(tmp_path / "home")
    serve(FILES, NEXT, "v2")
    path = locate.locate(_found("hf-hub:me/mine@v2"))
    assert path.is_relative_to(tmp_path / "cache" / "hub" / "me--mine" / NEXT)
    assert path.read_bytes() == FILES["model.safetensors"]
    assert len(web.requests) == 1  # the list of files
    path.resolve().unlink()
    assert locate.locate(_found("hf-hub:me/mine@v2")).read_bytes() == FILES["model.safetensors"]


def test_what_is_damaged_there_is_passed_over(web, serve, tmp_path, capsys):
    _in_their_cache(tmp_path / "home", damaged=True)
    serve()
    assert locate.locate(_found()).is_relative_to(tmp_path / "cache")
    assert "is not used" in capsys.readouterr().err


def test_our_own_weights_are_loaded_from_a_repository(web, serve, tmp_path):
    model = Inception(3, aux_head="none", width_multiplier=0.05)
    variables = jax.tree.map(
        lambda leaf: np.full(leaf.shape, 0.5, np.float32),
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 75, 75, 3), np.float32)),
    )
    mine = Pretrained(model, variables, Preprocessing(75), ("a", "b", "c"), "me", "")
    save(tmp_path / "mine", mine)
    serve({path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()})
    loaded = load_any("hf-hub:me/mine")
    assert (loaded.model, loaded.labels) == (model, mine.labels)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    asked = len(web.requests)
    assert load_any("hf-hub:me/mine").preprocessing.image_size == 75
    assert len(web.requests) == asked


def test_a_snapshot_is_known_by_all_its_files(serve):
    """The description next to the weights decides what they mean."""
    serve()
    first = hub.ask(_found()).sha256
    serve({**FILES, "README.md": b"another"})
    assert hub.ask(_found()).sha256 == first
    serve({**FILES, "config.json": b"[]"})
    assert hub.ask(_found()).sha256 != first
