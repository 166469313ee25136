"""Serve a Starlette app on loopback inside this event loop, with real outages and connections that just drop.

uvicorn's protocol class is run on a plain asyncio server: uvicorn's own ``Server`` takes over signals, and keeps the
transports to itself. Here every transport is known by its peer address, which is what ``Dropped`` needs to abort one.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from infra.devnet.loopback import bind_loopback

_KEY = "devnet.transports"


class Dropped(Response):
    """Close the connection without a byte of answer, as a panicking handler does.

    httpx reports ``ReadError`` or ``RemoteProtocolError``.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        """Abort the transport this request came on and wait until the protocol has noticed."""
        abort(scope)
        while (await receive())["type"] != "http.disconnect":
            pass


class Telling(Response):
    """Send another response, then call back: its bytes are with the socket, and the client was there to read them."""

    def __init__(self, response: Response, answered: Callable[[], Awaitable[object]]) -> None:
        """Send ``response`` and await ``answered``."""
        super().__init__()
        self._response, self._answered = response, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; a client that has gone is told nothing."""
        there = connected(scope)
        await self._response(scope, receive, send)
        if there:
            await self._answered()


def connected(scope: Scope) -> bool:
    """Say whether the connection a request came on is still open, as far as this end knows."""
    transport = scope["extensions"][_KEY].get(tuple(scope["client"]))
    return transport is not None and not transport.is_closing()


def abort(scope: Scope) -> None:
    """Abort the connection a request came on."""
    transports = scope["extensions"][_KEY]
    if transport := transports.get(tuple(scope["client"])):
        transport.abort()


async def hung_up(request: Request) -> None:
    """Return when the client has closed the connection; read the request's body first."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class HttpServer:
    """One app on one loopback port; ``stop`` and ``start`` keep the port."""

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        """Serve ``app`` on ``port`` (0: a free one, kept for re-starting)."""
        self._held = bind_loopback(port)
        self.port: int = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._app = app
        self._server: asyncio.Server | None = None
        self._transports: weakref.WeakValueDictionary[tuple[str, int], Any] = weakref.WeakValueDictionary()
        self._config = uvicorn.Config(
            self._with_transports,
            log_config=None,
            access_log=False,
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            timeout_keep_alive=75,
        )
        self._config.load()
        self._state = ServerState()
        self._held_until = weakref.finalize(self, self._held.close)

    @property
    def running(self) -> bool:
        """Say whether the port is being listened on."""
        return self._server is not None

    async def start(self) -> None:
        """Listen; do nothing if running."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._held_until.detach()
            self._server = await loop.create_server(self._protocol, sock=self._held, backlog=2048)

    async def stop(self) -> None:
        """Close the listening socket and cut every connection: from now on they are refused.

        A handler that stops its own server goes on, towards a client it no longer has.
        """
        if self._server is None:
            return
        self._server.close()
        self._server = None
        # bound and not listening: connections are refused, and nobody else is given the port
        self._held = bind_loopback(self.port)
        self._held_until = weakref.finalize(self, self._held.close)
        for transport in list(self._transports.values()):
            transport.abort()
        await asyncio.sleep(0.01)
        others = [task for task in self._state.tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _protocol(self) -> asyncio.Protocol:
        transports = self._transports

        class Protocol(H11Protocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                transports[tuple(transport.get_extra_info("peername"))] = transport

        return Protocol(config=self._config, server_state=self._state, app_state={})

    async def _with_transports(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[_KEY] = self._transports
        with contextlib.suppress(ClientDisconnect):  # killed in the middle of its request
            await self._app(scope, receive, send)
