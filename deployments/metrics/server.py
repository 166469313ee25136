"""The HTTP endpoint of metrics and health, in the proposer's own event loop."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from deployments.environment import Listen
from deployments.metrics.families import text_of
from deployments.metrics.health import role, unready
from deployments.metrics.sources import Sources
from proposer.errors import InvalidSettings

log = logging.getLogger("proposer.metrics")

CACHE_SECONDS = 3.0
"""A scrape within this time of another gets the same text, so that a storm of them costs nothing."""
CONNECTIONS = 64
"""Answered at the same time; more are told 503."""
CLOSE_SECONDS = 1.0


@asynccontextmanager
async def serving(listen: Listen, sources: Sources) -> AsyncIterator[None]:
    """Serve `/metrics`, `/healthz` and `/readyz`. Raises `InvalidSettings` where the port is taken."""
    state = ServerState()
    config = uvicorn.Config(
        _app(listen, sources),
        log_config=None,
        access_log=False,
        lifespan="off",
        interface="asgi3",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
    )
    config.load()

    def protocol() -> asyncio.Protocol:
        return H11Protocol(config=config, server_state=state, app_state={})

    # uvicorn's own Server takes over signals and ends the process where the port is taken
    server = await asyncio.get_running_loop().create_server(protocol, sock=_bound(listen))
    catching_up = asyncio.create_task(sources.catch_up())
    log.info("metrics and health: http://%s:%s/metrics, /healthz, /readyz", _shown(listen.address), listen.port)
    try:
        yield
    finally:
        server.close()
        catching_up.cancel()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=CLOSE_SECONDS)
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(catching_up, return_exceptions=True)
        await sources.aclose()


def _bound(listen: Listen) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in listen.address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((listen.address, listen.port))
    except OSError as error:
        listener.close()
        problem = (
            f"METRICS_PORT: cannot listen on {_shown(listen.address)}:{listen.port} ({error.strerror}); set it to a "
            "free port, or METRICS_ADDR to an address of this machine"
        )
        raise InvalidSettings([problem]) from None
    return listener


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _app(listen: Listen, sources: Sources) -> Starlette:
    text = _Text(sources)

    async def metrics(request: Request) -> Response:
        del request
        return Response(await text.read(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def healthz(request: Request) -> Response:
        """Answer: the event loop runs. Nothing outside is asked, for a restart would not bring it back."""
        del request
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        del request
        problem = unready(sources.proposer, sources.claim, listen.ready_seconds)
        if problem is not None:
            return PlainTextResponse(problem + "\n", 503)
        return PlainTextResponse(role(sources.claim) + "\n")

    routes = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    return Starlette(routes=[Route(path, answer, methods=["GET"]) for path, answer in routes.items()])


class _Text:
    """The text of the metrics, read once for all who ask within `CACHE_SECONDS`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._lock = asyncio.Lock()
        self._read_at = 0.0
        self._text = b""

    async def read(self) -> bytes:
        """Return the text, anew where it is old."""
        async with self._lock:
            if not self._text or time.monotonic() - self._read_at > CACHE_SECONDS:
                self._text = text_of(await self._sources.look())
                self._read_at = time.monotonic()
            return self._text
