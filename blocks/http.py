"""HTTP as every block uses it: one request, one deadline, bounded answers, and errors that hold no secret.

Endpoints are named `scheme://host:port`. User info, path and query may hold API keys: they appear nowhere, and are
cut out of what an endpoint says of itself (`Cannot POST /v2/<key>` is a common 404 text).
"""

import asyncio
import logging
import re
from base64 import b64encode
from collections.abc import AsyncIterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address
from math import isfinite
from ssl import SSLContext
from time import monotonic
from urllib.parse import unquote, urlsplit

import httpx
import orjson

from proposer.errors import BadReply, EndpointDown, InvalidSettings, OutcomeUnknown, RateLimited

CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 4 * 2**20
DECODE_ELSEWHERE_BYTES = 256 * 2**10
LARGE_AT_ONCE = 2
"""Large answers in memory at once: a proof of 1.25 MB is 4.5 MB of JSON, and 25 MB while it is decoded."""
MAX_PAUSE_SECONDS = 300.0
"""Longest pause an endpoint may ask for: a mistaken `Retry-After` must not stop settlement for a day."""
_TOO_MANY_REQUESTS = 429
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


class Endpoint:
    """A URL that shows only where it leads, never what it holds; and the pause its server asked for.

    Raises `InvalidSettings` for anything but http(s) with a host.
    """

    def __init__(self, url: str, setting: str) -> None:
        try:
            parts = urlsplit(url.strip())
            port = parts.port
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
            httpx.URL(url.strip())
        except (ValueError, httpx.InvalidURL):
            parts, port, usable = urlsplit(""), None, False
        if not usable:
            problem = f"{setting}: one of its URLs is not an http:// or https:// URL with a host"
            raise InvalidSettings([problem]) from None
        bare, mark, query = url.strip().partition("?")
        self._url, self._query = bare.rstrip("/"), mark + query
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self.name = f"{parts.scheme}://{host}:{port or (443 if parts.scheme == 'https' else 80)}"
        self.is_local = _is_local(parts.hostname or "")
        self.is_tls = parts.scheme == "https"
        pieces = {parts.username, parts.password, parts.path.rstrip("/"), parts.query, *parts.path.split("/")}
        pieces |= {pair.partition("=")[2] for pair in parts.query.split("&")}
        secrets = {form for piece in pieces if piece and len(piece) > 3 for form in (piece, unquote(piece))}
        if parts.password is not None:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
            secrets.add(b64encode(pair.encode()).decode())  # as it is sent
        self._secrets = sorted(secrets, key=len, reverse=True)
        _known_secrets.update(self._secrets)
        self._paused_until = 0.0

    def __repr__(self) -> str:
        return self.name

    def under(self, path: str) -> str:
        """Append a path, before the query. The result is secret."""
        return self._url + path + self._query

    def scrub(self, text: str) -> str:
        """Cut this URL's secret parts, and control characters, out of a text that came from outside."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _CONTROL.sub(" ", text)

    def pause(self, seconds: float, why: str) -> RateLimited:
        """Keep all calls of this endpoint off the wire for so long, at most 300 s; return the error that says so."""
        seconds = min(max(seconds, 0.0), MAX_PAUSE_SECONDS)
        self._paused_until = max(self._paused_until, monotonic() + seconds)
        return RateLimited(f"{self.name} asks for a pause of {seconds:g} s ({why})", seconds)

    def must_not_pause(self) -> None:
        """Raise `RateLimited` while a pause lasts."""
        left = self._paused_until - monotonic()
        if left > 0:
            raise RateLimited(f"{self.name} asked for a pause, {left:.1f} s of it are left: nothing was sent", left)


_known_secrets: set[str] = set()


def scrub_known(text: str) -> str:
    """Cut the secret parts of every URL of this process, and control characters, out of a text from outside."""
    for secret in sorted(_known_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _CONTROL.sub(" ", text)


def endpoints(urls: str, setting: str) -> list[Endpoint]:
    """Read a comma-separated list; raises `InvalidSettings` where it is empty or holds what is no URL."""
    found = [Endpoint(url, setting) for url in urls.split(",") if url.strip()]
    if not found:
        raise InvalidSettings([f"{setting}: no URL is given"])
    return found


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def text(self, limit: int) -> str:
        """The beginning of the body as text."""
        return self.body[: 4 * limit].decode("utf-8", "replace").strip()[:limit]

    def retry_after(self) -> float:
        """Read the seconds that `Retry-After` asks to wait, as a number or a date; 1 where it does not say."""
        value = self.headers.get("retry-after", "")
        try:
            seconds = float(value)
        except ValueError:
            try:
                at = parsedate_to_datetime(value)
            # its own parser trips over some dates that are none
            except (ValueError, TypeError, IndexError, OverflowError):
                return 1.0
            seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        return max(seconds, 0.0) if isfinite(seconds) else 1.0


class Http:
    """Connections to one endpoint, opened at the first request.

    `fresh` opens a connection per request: for requests that must not be lost. A kept connection that the server has
    just closed fails after the request was written, which looks like a request cut off before its answer.
    """

    def __init__(self, endpoint: Endpoint, *, fresh: bool = False, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.endpoint = endpoint
        self._fresh = fresh
        self._max_body_bytes = max_body_bytes
        self._client: httpx.AsyncClient | None = None
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)

    async def aclose(self) -> None:
        """Close every connection; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def exchange(
        self,
        method: str,
        path: str,
        content: bytes | AsyncIterable[bytes] | None,
        seconds: float,
        length: int = 0,
        turn: AsyncExitStack | None = None,
    ) -> Reply:
        """Send one request and read its answer within `seconds`.

        `length` is the size of a streamed `content`. With `turn`, an answer that turns out to be large waits for one of
        `LARGE_AT_ONCE` turns, which lasts until the stack is closed, and the wait is no part of `seconds`.

        Raises `EndpointDown` where nothing was sent, `OutcomeUnknown` where the request was cut off before its answer,
        `BadReply` where the answer is too large, and `RateLimited` where the server answers 429, or did so before and
        the pause is not over: nothing was taken.
        """
        self.endpoint.must_not_pause()
        if self._client is None:
            self._client = self._new_client()
        name = self.endpoint.name
        headers = {"Content-Type": "application/json"} if content is not None else {}
        if length:
            headers["Content-Length"] = str(length)
        limits = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        connected = False

        async def trace(event: str, _: Mapping[str, object]) -> None:
            nonlocal connected
            connected = connected or event.endswith("send_request_headers.started")

        request = self._client.build_request(
            method, self.endpoint.under(path), content=content, headers=headers, timeout=limits
        )
        request.extensions["trace"] = trace
        # `from None`: httpx's errors hold the request, and so the URL
        try:
            async with asyncio.timeout(seconds) as deadline:
                response = await self._client.send(request, stream=True)
                try:
                    body = await self._read(response, turn, deadline)
                    reply = Reply(response.status_code, response.headers, body)
                finally:
                    await response.aclose()
        except _NOT_SENT as error:
            raise EndpointDown(f"{name} cannot be reached: {self._why(error)}") from None
        except (TimeoutError, httpx.TimeoutException):
            if not connected:
                raise EndpointDown(f"{name} cannot be reached within {seconds:g} s") from None
            raise OutcomeUnknown(f"{name} did not answer within {seconds:g} s") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            kind = OutcomeUnknown if connected else EndpointDown
            raise kind(f"{name} closed the connection before its answer: {self._why(error)}") from None
        if reply.status == _TOO_MANY_REQUESTS:
            raise self.endpoint.pause(reply.retry_after(), "HTTP 429")
        return reply

    def _why(self, error: Exception) -> str:
        return self.endpoint.scrub(f"{type(error).__name__} {error}".strip())

    async def _read(self, response: httpx.Response, turn: AsyncExitStack | None, deadline: asyncio.Timeout) -> bytes:
        # one coding that we did not ask for is undone; several would let a small body hide a huge one
        if "," in response.headers.get("content-encoding", ""):
            raise BadReply(f"{self.endpoint.name}: the answer is encoded more than once")
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if turn is not None and len(body) > DECODE_ELSEWHERE_BYTES:
                await self._take_turn(turn, deadline)
                turn = None
            if len(body) > self._max_body_bytes:
                raise BadReply(f"{self.endpoint.name}: the answer is larger than {self._max_body_bytes} bytes")
        return bytes(body)

    async def _take_turn(self, turn: AsyncExitStack, deadline: asyncio.Timeout) -> None:
        """Wait for a turn while the deadline stands still; what is not read yet waits in the sender's buffers."""
        clock = asyncio.get_running_loop().time
        began, until = clock(), deadline.when()
        deadline.reschedule(None)
        await turn.enter_async_context(self._turns)
        if until is not None:
            deadline.reschedule(until + clock() - began)

    def _new_client(self) -> httpx.AsyncClient:
        _hush(self.endpoint.under(""))
        kept = 0 if self._fresh else 20
        return httpx.AsyncClient(
            # no compression: a small body could otherwise hide a huge one
            headers={"Accept-Encoding": "identity", "User-Agent": "op-succinct-proposer"},
            verify=_tls() if self.endpoint.is_tls else False,
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=kept, keepalive_expiry=5.0),
            # proxies of the environment serve the world outside, not this machine
            trust_env=not self.endpoint.is_local,
        )


async def decode(body: bytes, where: str) -> object:
    """Parse JSON, large bodies in a thread; raises `BadReply`. The content type is not looked at."""
    try:
        if len(body) > DECODE_ELSEWHERE_BYTES:
            return await asyncio.to_thread(orjson.loads, body)
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadReply(f"{where}: the answer is not JSON") from None


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@cache
def _tls() -> SSLContext:
    return httpx.create_ssl_context()


class _Hush(logging.Filter):
    """Drop httpx's line per request where it would hold one of our URLs; others' lines pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args if isinstance(record.args, tuple) else ()
        return not any(isinstance(a, httpx.URL) and (a.host, a.port) in _guarded for a in args)


_guarded: set[tuple[str, int | None]] = set()
_filter = _Hush()


def _hush(url: str) -> None:
    """Keep a URL out of httpx's log. Adding the same filter twice has no effect."""
    parsed = httpx.URL(url)
    _guarded.add((parsed.host, parsed.port))
    logging.getLogger("httpx").addFilter(_filter)
