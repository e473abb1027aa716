"""HTTP for weights: redirects, the hub's token, and retries.

Proxies and certificates are those of requests: HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE. HF_TOKEN
is sent to the hub's own host (HF_ENDPOINT) and never follows a redirect to another; ~/.netrc is
not used.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two pieces of an answer
TRIES = 3  # in a row for one address, without progress
PAUSE, MAX_PAUSE = (
    1.0,
    60.0,
)  # seconds between tries: doubled each time, or what the server asks for
MAX_REDIRECTS = 10
_OFFLINE = ("INCEPTION_OFFLINE", "HF_HUB_OFFLINE")
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_PIECE = 1 << 18  # bytes
_Result = TypeVar("_Result")


class TryAgain(Exception):
    """A failure that may pass; `seconds` is the wait that the server asks for, or 0.0."""

    def __init__(self, reason: str, seconds: float = 0.0):
        super().__init__(reason)
        self.seconds = seconds


class GiveUp(Exception):
    """A failure of an address that will not pass."""


def offline() -> str:
    """The environment variable that forbids every connection; "" if none does."""
    true = {"1", "true", "yes", "on"}
    return next((name for name in _OFFLINE if os.environ.get(name, "").lower() in true), "")


def endpoint() -> str:
    """The address of Hugging Face's hub, or of the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def retried(action: Callable[[], _Result], progress: Callable[[], int] = lambda: 0) -> _Result:
    """Repeats what raises `TryAgain`, `TRIES` times in a row without progress.

    Args:
      action: What to repeat.
      progress: Number of bytes received; tries are counted again whenever it grows.

    Raises:
      GiveUp: If all fail; has the last reason.
    """
    failures = 0
    while True:
        before = progress()
        try:
            return action()
        except TryAgain as trouble:
            failures = 1 if progress() >= before + _PIECE else failures + 1
            if failures >= TRIES:
                raise GiveUp(str(trouble)) from trouble
            time.sleep(min(trouble.seconds or PAUSE * 2 ** (failures - 1), MAX_PAUSE))


def read_json(url: str) -> Any:
    """The JSON that an address answers with.

    Raises:
      GiveUp: If it does not.
    """

    def read() -> Any:
        with opened(url, {"Accept": "application/json"}) as answer:
            try:
                return answer.json()
            except ValueError as error:  # also what requests raises of a connection that is cut
                kind = answer.headers.get("Content-Type")
                raise TryAgain(f"sends {kind} instead of JSON: is there a login page?") from error

    return retried(read)


@contextlib.contextmanager
def opened(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
    """The answer of an address, after redirects, whose body has not been read.

    Its status is 200, 206 (a part of it) or 416 (there is no such part).

    Raises:
      TryAgain, GiveUp: If there is none.
    """
    with _follow(url, dict(headers)) as answer:
        status = f"answers {answer.status_code} {answer.reason}"
        if answer.status_code in _PASSING:
            wait = answer.headers.get("Retry-After", "")
            raise TryAgain(status, float(wait) if wait.isdecimal() else 0.0)
        if answer.status_code in (401, 403) and _is_hub(url):
            state = "has no access" if os.environ.get("HF_TOKEN") else "is not set"
            raise GiveUp(f"{status}: private, gated or not there, and HF_TOKEN {state}")
        if answer.status_code not in (200, 206, 416):
            raise GiveUp(status)
        yield answer


def pieces(answer: Any) -> Iterator[bytes]:
    """The body of an answer.

    Raises:
      TryAgain: If it ends early.
    """
    try:
        yield from answer.iter_content(_PIECE)
    except OSError as error:  # of requests
        reason = f"the connection was cut, or silent for {TIMEOUT[1]:g} s"
        raise TryAgain(reason) from error


def _follow(url: str, headers: dict[str, str]) -> Any:
    """Follows redirects one by one: the token is for one host, and https stays https."""
    import requests  # a fifth of a second that most programs do not need

    for _ in range(MAX_REDIRECTS):
        with _explained():
            answer = requests.get(
                url,
                headers=headers | _token(url),
                auth=lambda request: request,  # or requests would add what ~/.netrc has
                stream=True,
                timeout=TIMEOUT,
                allow_redirects=False,
            )
        if not answer.is_redirect:
            return answer
        answer.close()
        target = urljoin(url, answer.headers["Location"])
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
            raise GiveUp(f"redirects to {target}, which is not HTTPS")
        url = target
    raise GiveUp(f"leads to more than {MAX_REDIRECTS} other addresses")


def _token(url: str) -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token and _is_hub(url) else {}


def _is_hub(url: str) -> bool:
    """Whether an address has the hub's host, port and encryption."""
    return urlsplit(url)[:2] == urlsplit(endpoint())[:2]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """A readable message for an exception of requests."""
    from requests import exceptions

    try:
        yield
    except exceptions.SSLError as error:
        reason = f"cannot be trusted ({error}). REQUESTS_CA_BUNDLE=FILE names your own certificates"
        raise GiveUp(reason) from error
    except exceptions.ProxyError as error:
        raise TryAgain("the proxy does not answer, see HTTPS_PROXY and NO_PROXY") from error
    except exceptions.Timeout as error:
        seconds = TIMEOUT[not isinstance(error, exceptions.ConnectTimeout)]
        raise TryAgain(f"does not answer within {seconds:g} s") from error
    except (exceptions.ConnectionError, exceptions.ChunkedEncodingError) as error:
        raise TryAgain("cannot be reached: is there a network?") from error
    except (OSError, ValueError) as error:  # of the address, the proxy's, or the certificates' file
        raise GiveUp(f"request failed: {error}") from error
