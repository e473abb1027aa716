"""HTTP: who gets the token, which certificates and proxies, and what trouble is called."""

import shutil
import socket
import ssl
import subprocess

import pytest

from inception.weights import transport
from tests.loopback import BODY, Server, page, redirect, send, status, whole

TOKEN = "hf_secret"


def _get(url: str) -> bytes:
    with transport.opened(url, {}) as answer:
        return b"".join(transport.pieces(answer))


def _authorizations(server: Server) -> list[str | None]:
    return [headers.get("Authorization") for _, headers in server.requests]


def test_the_token_goes_to_the_hub_alone(web, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", web.url())
    with Server() as other:
        other.routes["/x"] = whole()
        web.routes |= {"/x": redirect("/y"), "/y": redirect(other.url("/x"))}
        assert _get(web.url("/x")) == BODY
        assert _authorizations(web) == [f"Bearer {TOKEN}"] * 2
        _get(other.url("/x"))
        assert _authorizations(other) == [None, None]


def test_what_netrc_has_is_sent_to_nobody(web, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    web.routes |= {"/x": redirect("/y"), "/y": whole()}
    assert _get(web.url("/x")) == BODY
    assert _authorizations(web) == [None, None]


def test_redirects_end(web):
    web.routes["/x"] = redirect("/x")
    with pytest.raises(transport.GiveUp, match="more than 10"):
        _get(web.url("/x"))


@pytest.mark.parametrize(("token", "said"), [("", "HF_TOKEN is not set"), (TOKEN, "no access")])
def test_a_private_repository_is_told_from_an_absent_one(web, monkeypatch, token, said):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("HF_ENDPOINT", web.url())
    web.routes["/x"] = status(401)
    with pytest.raises(transport.GiveUp, match=said):
        _get(web.url("/x"))


def test_a_page_is_not_json(web):
    web.routes |= {"/page": page(), "/json": lambda request, _: send(request, 200, b'{"a": 1}')}
    assert transport.read_json(web.url("/json")) == {"a": 1}
    with pytest.raises(transport.GiveUp, match="text/html instead of JSON"):
        transport.read_json(web.url("/page"))
    assert len(web.requests) == 1 + transport.TRIES


def test_the_proxy_of_the_environment_is_used(web, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", web.url())
    monkeypatch.setenv("http_proxy", web.url())
    address = "http://weights.invalid/x"
    web.routes[address] = whole()
    assert _get(address) == BODY
    assert web.paths() == [address]


def test_a_proxy_that_is_not_there_is_named(web, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(transport.TryAgain, match="proxy"):
            _get("http://weights.invalid/x")


@pytest.fixture
def certificate(tmp_path):
    """A certificate of our own for 127.0.0.1, with its key in the same file."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    file = tmp_path / "own.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    output = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    command = ["openssl", "req", "-x509", *kind, *subject, *output]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text((tmp_path / "cert").read_text() + (tmp_path / "key").read_text())
    return file


def test_own_certificates_are_trusted_where_they_are_named(web, certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Server() as plain:
        web.wrap(context)
        plain.routes["/x"] = whole()
        web.routes |= {"/x": whole(), "/down": redirect(plain.url("/x"))}
        with pytest.raises(transport.GiveUp, match="REQUESTS_CA_BUNDLE"):
            _get(web.url("/x", "https"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert _get(web.url("/x", "https")) == BODY
        with pytest.raises(transport.GiveUp, match=r"redirects to http:.*not HTTPS"):
            _get(web.url("/down", "https"))
        assert plain.requests == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_name("absent")))
    with pytest.raises(transport.GiveUp, match="absent"):
        _get(web.url("/x", "https"))
