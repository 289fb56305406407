"""A server that writes answers, over HTTP: what it is sent, what it says, and in one sentence what went wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from functools import cache
from http.client import HTTPException, HTTPResponse, IncompleteRead
from ssl import SSLError
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener, getproxies, proxy_bypass

KEY = "VLLM_API_KEY"  # the environment variable that ``vllm serve`` reads, too
_CHUNK = 2**16  # bytes
_CERTIFICATE = (
    "let SSL_CERT_FILE name the certificates that its own is signed by, or write http:// where it speaks no TLS"
)


class EngineError(RuntimeError):
    """What writes the answers did not, or wrote something else; one sentence with the remedy."""


class Client(NamedTuple):
    """Where the server is.

    Attributes:
        url: Without a path.
        seconds: Within which a request must be answered.
        kept: What stands when it is not, for the errors.
        again: What to do then.
    """

    url: str
    seconds: float
    kept: str = "and the policy was not updated"
    again: str = "start the server again and continue with --resume"

    def told(self, path: str, body: Mapping[str, object] | None = None, *, missing: str = "") -> dict[str, object]:
        """What the server says to a request, a JSON object.

        Args:
            path: Of the request.
            body: Sent as JSON by POST; None: asked by GET.
            missing: Why the server may know no such path.

        Raises:
            EngineError: It says something else, or nothing, or nothing in time.
        """
        text = self.said(path, body, missing=missing)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EngineError(
                f"{self.url}{path} answered what is no JSON ({_short(text)!r}), {self.kept}: name a server that "
                "speaks the OpenAI completions protocol as vllm serve does"
            ) from error
        if not isinstance(found, dict):
            raise EngineError(
                f"{self.url}{path} answered a {type(found).__name__} where an object of JSON is needed, {self.kept}: "
                "name a server that speaks the OpenAI completions protocol as vllm serve does"
            )
        return found

    def said(self, path: str, body: Mapping[str, object] | None = None, *, missing: str = "") -> str:
        """The same as text, whatever it is.

        Raises:
            EngineError: The request is refused, or not answered in time.
        """
        data = None if body is None else json.dumps(body).encode()
        until = time.monotonic() + self.seconds
        try:
            with _opener().open(self._request(path, data), timeout=self.seconds) as answer:
                return _read(answer, until).decode(errors="replace")
        except HTTPError as error:
            raise EngineError(self._refused(path, error, missing)) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, TimeoutError):
                raise EngineError(
                    f"{self.url}{path} did not answer within {self.seconds:g} s (vllm_seconds), {self.kept}: raise it, "
                    "or ask for fewer or shorter answers, and continue with --resume"
                ) from error
            said = _short(str(reason)) or type(reason).__name__
            remedy = _CERTIFICATE if isinstance(reason, SSLError) else self.again
            raise EngineError(
                f"{self.url} does not answer ({said}), {self.kept}: {self._past_proxy}{remedy}"
            ) from error

    def has(self, path: str) -> bool:
        """Whether there is a door, which is not opened: one for POST answers a GET with 405. True where nobody says."""
        try:
            with _opener().open(self._request(path), timeout=self.seconds):
                return True
        except HTTPError as error:
            return error.code != 404
        except (OSError, HTTPException, ValueError):
            return True

    def _request(self, path: str, data: bytes | None = None) -> Request:
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return Request(self.url + path, data=data, headers=headers)

    @property
    def _past_proxy(self) -> str:
        """What to do first where a proxy of the environment stands between; nothing where none does."""
        parts = urlsplit(self.url)
        if parts.scheme not in getproxies() or proxy_bypass(parts.netloc):
            return ""
        return f"it was asked through {parts.scheme}_proxy, and NO_PROXY={parts.hostname} asks it directly; else "

    def _refused(self, path: str, error: HTTPError, missing: str) -> str:
        status, reason = error.code, _reason(error)
        remedy = "look at the log of the server"
        if status in (401, 403):
            remedy = f"set {KEY} to the key that the server was started with"
        elif 300 <= status < 400:
            remedy = f"name the server itself, requests are not passed on to {_short(str(error.headers['Location']))}"
        elif status in (404, 405) and missing:
            remedy = missing
        return f"{self.url}{path} answered with status {status} ({reason}), {self.kept}: {self._past_proxy}{remedy}"


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: followed, a POST would become a GET, and the key be shown to whoever is named."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Ask nobody else."""


@cache
def _opener() -> OpenerDirector:
    """Through the proxies of the environment, as it is when the first request is made."""
    return build_opener(_NoRedirects)


def _read(answer: HTTPResponse, until: float) -> bytes:
    """The whole body, however slowly it comes, but not for longer."""
    parts: list[bytes] = []
    while part := answer.read1(_CHUNK):
        parts.append(part)
        if time.monotonic() > until:
            raise TimeoutError
    if answer.length:  # announced, and not sent
        raise IncompleteRead(b"".join(parts), answer.length)
    return b"".join(parts)


def _reason(error: HTTPError) -> str:
    """What a server says of its refusal: as vLLM does, as FastAPI does, or in words of its own."""
    try:
        text = error.read(_CHUNK).decode(errors="replace")
    except (OSError, HTTPException):
        return error.reason
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _short(text) or error.reason
    if isinstance(found, dict):
        inner = found.get("error", found)
        found = inner.get("message", inner.get("detail", inner)) if isinstance(inner, dict) else inner
    return _short(str(found))


def _short(text: str) -> str:
    """One line of it."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]} ..."
