"""A TCP proxy in front of PostgreSQL that knows when a transaction that wrote something commits."""

import asyncio
import contextlib
import struct
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

from infra.devnet.loopback import bind_loopback, free_port
from infra.devnet.postgres_wire import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    READY,
    SSL_REQUEST,
    Conversation,
    Cycle,
    messages,
    startup_parameters,
)
from infra.devnet.traps import Traps

Target = tuple[str, int] | str
_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK = 256 * 1024


class PostgresProxy:
    """Pass PostgreSQL's protocol on from a loopback port to ``target``: (host, port), or a Unix socket's path.

    A commit that was not read-only reaches, with ``wrote`` (the tables inserted into, updated or deleted from) and the
    ``application`` name of the connection:

    ``postgres.commit.before``: PostgreSQL has not seen it, and never does if the client goes away there;
    ``postgres.commit.done``: it has committed, and the client does not know;
    ``postgres.commit.answered``: the client's socket was given the answer.

    ``close()`` is a real outage: connections are cut and refused; ``open()`` listens on the same port again. While
    frozen, connections are taken and kept and nothing passes.
    """

    def __init__(self, target: Target, port: int = 0, *, traps: Traps | None = None) -> None:
        """Stand before ``target`` on ``port`` (0: a free one, kept for re-opening)."""
        self.target = target
        self.port = port or free_port()
        self.traps = traps or Traps()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    def before(cls, url: str, port: int = 0, *, traps: Traps | None = None) -> Self:
        """Stand before the server of a ``postgresql://`` URL, a socket's folder in ``?host=`` included."""
        parts = urlsplit(url)
        hosts = parse_qs(parts.query).get("host")
        host, at = hosts[0] if hosts else parts.hostname or "127.0.0.1", parts.port or 5432
        return cls(f"{host}/.s.PGSQL.{at}" if host.startswith("/") else (host, at), port, traps=traps)

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut every connection."""
        await self.close()

    def url(self, database: str, user: str = "postgres", application: str | None = None) -> str:
        """Return the URL of a database through the proxy: no password, no TLS."""
        named = f"&application_name={quote(application)}" if application else ""
        return f"postgresql://{quote(user)}@127.0.0.1:{self.port}/{quote(database)}?sslmode=disable{named}"

    async def open(self) -> None:
        """Listen; do nothing if open."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=bind_loopback(self.port), backlog=512)

    async def close(self) -> None:
        """Stop listening and cut every connection; a frozen proxy thaws."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        self._flowing.set()
        await asyncio.sleep(0.01)

    def freeze(self) -> None:
        """Let nothing pass from now on, in neither direction."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything pass again."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        inner: asyncio.StreamWriter | None = None
        try:
            code, startup = await self._startup(reader, writer)
            inner_reader, inner = await self._connect()
            self._writers.add(inner)
            await self.forward(inner, startup)
            if code == CANCEL_REQUEST:
                await inner_reader.read()
            else:
                await _Session(self, (reader, writer), (inner_reader, inner), startup).run()
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            for end in (writer, inner):
                if end is not None:
                    self._writers.discard(end)
                    end.close()

    async def _startup(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bytes]:
        """Read up to the startup or cancel message; encryption is declined."""
        while True:
            head = await reader.readexactly(8)
            size, code = struct.unpack("!II", head)
            if code not in {SSL_REQUEST, GSSENC_REQUEST}:
                return code, head + await reader.readexactly(size - 8)
            await self.forward(writer, b"N")

    async def _connect(self) -> _End:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(*self.target)

    async def forward(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Write as soon as anything passes."""
        await self._flowing.wait()
        writer.write(data)
        await writer.drain()


class _Session:
    """One client's connection after its startup message."""

    def __init__(self, proxy: PostgresProxy, client: _End, server: _End, startup: bytes) -> None:
        self._proxy, self._talk = proxy, Conversation()
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._application = startup_parameters(startup[8:]).get("application_name", "")

    async def run(self) -> None:
        """Pass messages on until both sides have ended."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._ask())
            both.create_task(self._answer())

    async def _reach(self, place: str, cycle: Cycle) -> None:
        facts = {"wrote": frozenset(cycle.wrote), "application": self._application}
        await self._proxy.traps.reach(f"postgres.commit.{place}", **facts)

    async def _ask(self) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while data := await self._from_client.read(_CHUNK):
                buffer += data
                ready = b""
                for kind, message in messages(buffer):
                    if (cycle := self._talk.asked(kind, message)) is not None:
                        await self._proxy.forward(self._to_server, ready)
                        ready = b""
                        await self._reach("before", cycle)
                        if self._client_gone():
                            self._to_server.transport.abort()
                            return
                    ready += message
                await self._proxy.forward(self._to_server, ready)
        with contextlib.suppress(OSError, RuntimeError):
            self._to_server.write_eof()

    async def _answer(self) -> None:
        buffer, held = bytearray(), b""
        with contextlib.suppress(OSError):
            while data := await self._from_server.read(_CHUNK):
                buffer += data
                ready = b""
                told: list[Cycle] = []
                for kind, message in messages(buffer):
                    cycle = self._talk.answered(kind, message)
                    if cycle is not None and cycle.committing:
                        held += message
                        if kind != READY:
                            continue
                        if cycle.committed:
                            await self._reach("done", cycle)
                            told.append(cycle)
                        message, held = held, b""
                    ready += message
                await self._proxy.forward(self._to_client, ready)
                for cycle in told:
                    if not self._client_gone():
                        await self._reach("answered", cycle)
            await self._proxy.forward(self._to_client, held)
        self._to_client.close()

    def _client_gone(self) -> bool:
        reader = self._from_client
        return reader.at_eof() or reader.exception() is not None or self._to_client.is_closing()
