"""A TCP gate in front of a server: closing it is a real outage, "connection refused" included."""

import asyncio
import contextlib
import socket


def bind_loopback(port: int = 0) -> socket.socket:
    """Return a socket bound (not yet listening) to 127.0.0.1; port 0 takes a free one."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def free_port() -> int:
    """Return a loopback port nobody listens on now."""
    with bind_loopback() as bound:
        return int(bound.getsockname()[1])


class Gate:
    """Forward a loopback port to another one, until closed."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        """Forward ``port`` (0: a free one, kept for re-opening) to ``target_port``."""
        self.port = port or free_port()
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen; do nothing if the gate is open."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=bind_loopback(self.port))

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        inner: asyncio.StreamWriter | None = None
        try:
            inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(inner)
            await asyncio.wait(
                [asyncio.create_task(_pump(reader, inner)), asyncio.create_task(_pump(inner_reader, writer))],
                return_when=asyncio.ALL_COMPLETED,
            )
        except OSError:
            writer.transport.abort()
        finally:
            for end in (writer, inner):
                if end is not None:
                    self._writers.discard(end)
                    end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()
