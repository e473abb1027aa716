"""A web server on the loopback interface, that answers as real ones do on their bad days."""

import dataclasses
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Mapping

import numpy as np

BODY = np.random.default_rng(0).bytes(1_200_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
CUT = 700_000  # bytes after which a connection is cut
KEPT = CUT // (1 << 18) * (1 << 18)  # bytes that a cut leaves: whole pieces
Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler, int], None]  # of a request, and how many came before it to its path


class Server:
    """Answers by path, and remembers what was asked.

    Attributes:
      routes: the answer of each path; others have 404.
      requests: (path, headers) of all requests.
      bodies: The last that was sent to each path.
    """

    def __init__(self):
        self.routes: dict[str, Answer] = {}
        self.requests: list[tuple[str, Mapping[str, str]]] = []
        self.bodies: dict[str, bytes] = {}
        outer = self

        class _Handler(Handler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                before = outer.paths().count(self.path)
                outer.requests.append((self.path, dict(self.headers)))
                answer = outer.routes.get(self.path.partition("?")[0], status(404))
                answer(self, before)

            def do_POST(self):
                length = int(self.headers.get("Content-Length", 0))
                outer.bodies[self.path] = self.rfile.read(length)
                self.do_GET()

            do_PUT = do_POST

        class _Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                """Clients that have had enough, or do not trust the certificate, are no news."""

        self._server = _Quiet(("127.0.0.1", 0), _Handler)

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wrap(self, context) -> None:
        """From now on by TLS."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self._server.server_port}{path}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


def send(request: Handler, code: int, body: bytes = b"", length: int = -1, **headers: str) -> None:
    """Sends an answer; `length` is announced instead of the body's own."""
    request.send_response(code)
    request.send_header("Content-Length", str(len(body) if length < 0 else length))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def whole(
    body: bytes = BODY, *, cut: int = 0, ranges: bool = True, tag: str = "", **headers: str
) -> Answer:
    """A file, or the part that is asked for; the first `cut` connections are cut."""

    def answer(request: Handler, before: int) -> None:
        begin = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range", tag) == tag
        start = int(begin[1]) if begin and ranges and same else 0
        extra = dict(headers) | ({"ETag": tag} if tag else {})
        if start >= len(body):
            send(request, 416)
            return
        if start:
            extra["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        short = body[start : start + CUT] if before < cut else body[start:]
        send(request, 206 if start else 200, short, len(body) - start, **extra)
        if before < cut:
            request.close_connection = True

    return answer


def chunked(body: bytes = BODY) -> Answer:
    """A file whose length is not announced."""

    def answer(request: Handler, before: int) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for start in range(0, len(body), CUT):
            piece = body[start : start + CUT]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    return answer


def status(code: int, times: int = 10**9, then: Answer | None = None, **headers: str) -> Answer:
    """An answer without a body, `times` times, and then another."""

    def answer(request: Handler, before: int) -> None:
        if before < times or not then:
            send(request, code, **headers)
        else:
            then(request, before)

    return answer


def page(text: str = "<html>log in to the hotel's network</html>") -> Answer:
    """What a captive portal says to everything."""
    return lambda request, before: send(request, 200, text.encode(), Content_Type="text/html")


def redirect(to: str) -> Answer:
    """To another address."""
    return status(302, Location=to)


def sibling(name: str, content: bytes) -> dict:
    """As the hub's API lists a file: large ones with a SHA-256, all with git's digest."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    about = {"rfilename": name, "size": len(content), "blobId": git}
    if name.endswith((".safetensors", ".h5")):
        about["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return about


def repository(
    server: Server, files: dict[str, bytes], commit: str, revision: str = "main"
) -> None:
    """Makes the server a hub that has a repository me/mine."""
    told = {"sha": commit, "siblings": [sibling(*file) for file in files.items()]}
    server.routes[f"/api/models/me/mine/revision/{revision}"] = lambda request, _: send(
        request, 200, json.dumps(told).encode()
    )
    for name, content in files.items():
        server.routes[f"/me/mine/resolve/{commit}/{name}"] = whole(content)


def publish(monkeypatch, web: Server, content: bytes, name: str = "keras", **fields):
    """Puts content on the server, as what a name of the registry stands for."""
    from inception.weights.registry import REGISTRY

    file = REGISTRY[name].file
    known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "md5": ""}
    offered = dataclasses.replace(REGISTRY[name], urls=(web.url(f"/{file}"),), **(known | fields))
    web.routes[f"/{file}"] = whole(content)
    monkeypatch.setitem(REGISTRY, name, offered)
    return offered
