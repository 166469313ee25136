"""A scripted HTTP server on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

KEY = "sEcReTaPiKeY"


@dataclass
class Say:
    """One scripted answer.

    `drop` closes without an answer, `hang` waits until the client goes, `raw` is sent as it is, and then the
    connection is closed. `after_s` is how long the answer takes, from when `after` is set.
    """

    body: bytes | str | dict[str, Any] | list[Any] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    hang: bool = False
    raw: bytes | None = None
    after_s: float = 0.0
    after: asyncio.Event | None = None


def members(*proofs: bytes) -> tuple[Sequence[int], AsyncIterator[bytes]]:
    """What an aggregation of these proofs is asked with: their lengths, and each as it is read."""

    async def read() -> AsyncIterator[bytes]:
        for proof in proofs:
            yield proof

    return [len(proof) for proof in proofs], read()


Answer = Callable[[str, str, bytes], Say]


@dataclass
class Server:
    """A loopback HTTP server: what it answers, and what it was asked; use as ``async with``."""

    port: int = 0
    answer: Answer = lambda method, path, body: Say()
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    connections: int = 0
    under_way: int = 0
    most_under_way: int = 0
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its URL, with secrets in it."""
        return f"http://user:{KEY}@127.0.0.1:{self.port}/v2/{KEY}?token={KEY}"

    @property
    def plain(self) -> str:
        """Its URL without secrets."""
        return f"http://127.0.0.1:{self.port}"

    def rpc(self, results: Callable[[str, list[Any]], Any]) -> None:
        """Answer JSON-RPC: `results` returns a result, an `error` object in a dict `{"error": ..}`, or a `Say`."""

        def answer(method: str, path: str, body: bytes) -> Say:
            call = json.loads(body)
            result = results(call["method"], call["params"])
            if isinstance(result, Say):
                return result
            is_error = isinstance(result, dict) and set(result) == {"error"}
            said = result if is_error else {"result": result}
            return Say({"jsonrpc": "2.0", "id": call["id"], **said})

        self.answer = answer

    async def __aenter__(self) -> Self:
        """Listen."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop listening, and cut what is still connected."""
        self._listening.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._talk(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ", 2)
                self.seen.append((method, path, body))
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    say = self.answer(method, path, body)
                    if say.after is not None:
                        await say.after.wait()
                    await asyncio.sleep(say.after_s)
                    if say.hang:
                        await reader.read()
                        break
                finally:
                    self.under_way -= 1
                if say.drop:
                    break
                if say.raw is not None:
                    writer.write(say.raw)
                    await writer.drain()
                    break
                raw = say.body if isinstance(say.body, bytes) else (
                    say.body.encode() if isinstance(say.body, str) else json.dumps(say.body).encode()
                )  # fmt: skip
                extra = "".join(f"{k}: {v}\r\n" for k, v in say.headers.items())
                writer.write(f"HTTP/1.1 {say.status} X\r\nContent-Length: {len(raw)}\r\n{extra}\r\n".encode() + raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
