"""Downloads: from servers on the loopback interface, on their good and their bad days."""

import base64
import errno
import hashlib
import os
import resource
import shutil
import socket
import threading
from collections import namedtuple

import pytest

from inception.weights import cache, transport
from inception.weights.cache import File
from inception.weights.download import DownloadError, fetch
from tests.loopback import BODY, CUT, KEPT, SHA256, chunked, page, send, status, whole

OTHER = bytes(len(BODY))


def _left(file: File) -> list[str]:
    names = (path.name for path in file.path.parent.glob("*"))
    return sorted(name for name in names if not name.endswith(".lock"))


@pytest.mark.parametrize(
    ("route", "ranges"),
    [
        (whole(), [None]),
        (whole(cut=1), [None, f"bytes={KEPT}-"]),
        (whole(cut=1, ranges=False), [None, f"bytes={KEPT}-"]),
        (status(503, 1, whole()), [None, None]),
        (status(429, 2, whole(), Retry_After="0"), [None, None, None]),
    ],
    ids=["whole", "cut", "cut, and the server knows no ranges", "busy once", "told to wait"],
)
def test_a_file_arrives_and_is_asked_for_as_often_as_needed(web, wanted, route, ranges):
    web.routes["/w.bin"] = route
    file = wanted("/w.bin")
    assert fetch(file).read_bytes() == BODY
    assert web.ranges() == ranges
    assert _left(file) == ["w.bin"]


def test_a_file_that_is_here_is_not_asked_for_again(web, wanted):
    web.routes["/w.bin"] = whole()
    assert fetch(wanted("/w.bin")) == fetch(wanted("/w.bin"))
    assert web.paths() == ["/w.bin"]


def test_a_silent_server_is_left_and_asked_again(web, wanted, monkeypatch):
    monkeypatch.setattr(transport, "TIMEOUT", (20.0, 1.0))
    asked_again = threading.Event()

    def silent(request, before):
        if before:
            asked_again.set()
            whole()(request, before)
        else:
            asked_again.wait(60)
            request.close_connection = True

    web.routes["/w.bin"] = silent
    assert fetch(wanted("/w.bin")).read_bytes() == BODY
    assert asked_again.is_set()


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (status(404), "answers 404"),
        (whole(OTHER), hashlib.sha256(OTHER).hexdigest()),
        (whole(BODY[:-1]), "announces 1,199,999 bytes"),
        (whole(BODY + b"x"), "announces 1,200,001 bytes"),
        (page(), "announces 42 bytes (text/html), not 1,200,000"),
        (status(500), "answers 500"),
        (lambda request, before: send(request, 206, BODY, Content_Range="bytes 7-"), "bytes 7-"),
    ],
    ids=["absent", "wrong", "short", "long", "portal", "broken", "another range"],
)
def test_a_mirror_helps_and_without_one_the_message_does(web, wanted, tmp_path, route, said):
    web.routes |= {"/bad/w.bin": route, "/good/w.bin": whole()}
    file = wanted("/bad/w.bin")
    with pytest.raises(DownloadError) as raised:
        fetch(file)
    for part in (said, "w.bin (1,200,000 bytes", SHA256, web.url("/bad/w.bin"), str(file.path)):
        assert part in str(raised.value)
    assert "w.bin" not in _left(file)
    assert fetch(wanted("/bad/w.bin", "/good/w.bin")).read_bytes() == BODY


def test_a_portal_does_not_touch_what_was_received(web, wanted):
    """Its page was once appended to a part of the file, and the mirror went on after it."""
    web.routes |= {"/portal/w.bin": page(), "/b/w.bin": whole()}
    web.routes["/a/w.bin"] = lambda request, before: (whole(cut=1) if before == 0 else status(404))(
        request, before
    )
    assert fetch(wanted("/a/w.bin", "/portal/w.bin", "/b/w.bin")).read_bytes() == BODY
    assert web.ranges() == [None, *[f"bytes={KEPT}-"] * 3]


def test_the_next_run_goes_on_where_the_last_one_stopped(web, wanted):
    web.routes["/w.bin"] = lambda request, before: (whole(cut=1) if before == 0 else status(503))(
        request, before
    )
    with pytest.raises(DownloadError, match="503"):
        fetch(wanted("/w.bin"))
    web.requests.clear()
    web.routes["/w.bin"] = whole()
    assert fetch(wanted("/w.bin")).read_bytes() == BODY
    assert web.ranges() == [f"bytes={KEPT}-"]


def test_a_damaged_part_is_given_up_once(web, wanted):
    file = wanted("/w.bin")
    file.path.parent.mkdir(parents=True)
    part = file.path.with_name(f"w.bin.{socket.gethostname()}.part")
    part.write_bytes(b"x" * 1000)
    web.routes["/w.bin"] = whole()
    assert fetch(file).read_bytes() == BODY
    assert web.ranges() == ["bytes=1000-", None]


def test_without_a_digest_a_part_is_used_only_if_the_server_says_it_is_the_same(web, wanted):
    """`If-Range`: the file was replaced between the two connections."""
    new = BODY[::-1]
    web.routes["/w.bin"] = lambda request, before: (
        whole(cut=1, tag='"old"') if before == 0 else whole(new, tag='"new"')
    )(request, before)
    assert fetch(wanted("/w.bin", sha256="", size=0)).read_bytes() == new
    assert web.requests[1][1]["If-Range"] == '"old"'


def test_without_a_digest_what_arrived_is_kept_in_mind_and_a_page_refused(web, wanted):
    file = wanted("/w.bin", sha256="", size=0)
    web.routes["/w.bin"] = page()
    with pytest.raises(DownloadError, match="text/html"):
        fetch(file)
    web.routes["/w.bin"] = whole()
    fetch(file)
    assert cache.recorded(file.path) == SHA256


def test_without_a_length_the_digest_decides(web, wanted, monkeypatch):
    web.routes |= {"/w.bin": chunked(), "/other": chunked(OTHER)}
    with pytest.raises(DownloadError, match="sends another file"):
        fetch(wanted("/other", size=0))
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        fetch(wanted("/w.bin", size=0, sha256=""))
    file = wanted("/w.bin", size=0)
    with monkeypatch.context() as patch:
        patch.setattr("inception.weights.download.MAX_BYTES", CUT)
        with pytest.raises(DownloadError, match="sends more than 700,000 bytes"):
            fetch(file)
    assert _left(file) == []
    assert fetch(file).read_bytes() == BODY


def test_googles_own_digest_of_what_it_sends_is_checked(web, wanted):
    right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    wrong = base64.b64encode(hashlib.md5(OTHER).digest()).decode()
    web.routes |= {
        "/right": whole(x_goog_hash=f"crc32c=AAAAAA==,md5={right}"),
        "/wrong": whole(x_goog_hash=f"md5={wrong}"),
    }
    with pytest.raises(DownloadError, match=hashlib.md5(OTHER).hexdigest()):
        fetch(wanted("/wrong", sha256="", size=0))
    assert fetch(wanted("/right", sha256="", size=0)).read_bytes() == BODY


def test_every_digest_that_is_known_is_checked(web, wanted):
    web.routes["/w.bin"] = whole()
    with pytest.raises(DownloadError, match="md5"):
        fetch(wanted("/w.bin", md5="0" * 32))
    md5 = hashlib.md5(BODY).hexdigest()
    git = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
    assert fetch(wanted("/w.bin", md5=md5, git=git)).read_bytes() == BODY


def test_a_damaged_file_is_set_aside_and_fetched_again(web, wanted, capsys):
    file = wanted("/w.bin")
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(OTHER)
    web.routes["/w.bin"] = whole()
    assert fetch(file).read_bytes() == BODY
    assert file.path.with_name("w.bin.damaged").read_bytes() == OTHER
    assert str(file.path) in capsys.readouterr().err


def test_a_mirror_of_ones_own_is_asked_first(web, wanted, monkeypatch):
    monkeypatch.setenv("INCEPTION_MIRROR", web.url("/mirror/"))
    web.routes |= {"/mirror/w.bin": whole(), "/w.bin": whole()}
    fetch(wanted("/w.bin"))
    assert web.paths() == ["/mirror/w.bin"]


@pytest.mark.parametrize("variable", ["INCEPTION_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_opens_no_connection(web, wanted, monkeypatch, variable):
    def refuse(*_):
        raise AssertionError("a connection")

    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    file = wanted("/w.bin")
    with pytest.raises(DownloadError) as raised:
        fetch(file)
    for part in (variable, "w.bin", SHA256, web.url("/w.bin"), str(file.path)):
        assert part in str(raised.value)


def test_no_network_is_said(wanted, web):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/w.bin"
        with pytest.raises(DownloadError, match="cannot be reached"):
            fetch(File(wanted().path, (url,), len(BODY), SHA256))


@pytest.mark.parametrize("place", ["/proc/nothing", "a file"])
def test_a_cache_that_cannot_be_written_is_named(web, tmp_path, place):
    (tmp_path / "a file").touch()
    path = tmp_path / place / "weights" / "w.bin"
    with pytest.raises(DownloadError) as raised:
        fetch(File(path, (web.url("/w.bin"),), len(BODY), SHA256))
    for part in ("INCEPTION_CACHE", "w.bin", SHA256, web.url("/w.bin")):
        assert part in str(raised.value)
    assert str(path.parent) in str(raised.value)
    assert not web.requests


def test_a_disk_without_room_is_said_before_a_byte_is_written(web, wanted, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    web.routes["/w.bin"] = whole()
    with pytest.raises(DownloadError, match="5 bytes are free and 1,200,000 needed"):
        fetch(wanted("/w.bin"))


def test_a_disk_that_fills_up_leaves_nothing(web, wanted):
    web.routes["/w.bin"] = whole()
    file, limits = wanted("/w.bin"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CUT, limits[1]))
    try:
        with pytest.raises(DownloadError, match=os.strerror(errno.EFBIG)):
            fetch(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _left(file) == []


def test_a_bad_line_is_not_given_up_while_it_brings_something(web, wanted, monkeypatch):
    monkeypatch.setattr(transport, "TRIES", 2)
    long = BODY * 4
    web.routes["/w.bin"] = whole(long, cut=8)
    sha256 = hashlib.sha256(long).hexdigest()
    assert fetch(wanted("/w.bin", sha256=sha256, size=len(long))).stat().st_size == len(long)
    assert len(web.requests) > 5
