"""One round of looks at everything that is being proven, at a server that takes its time."""

import asyncio
import time
from contextlib import suppress

import psycopg

from flows.context import Proposer
from flows.stages import proving
from proposer.errors import ProposerError
from proposer.requests import Status
from tests.bench.figures import Outcome, above, below, plain
from tests.bench.parts import proposer_of
from tests.bench.world import World

MANY, LATENCY_SECONDS = 1000, 0.05
SHORT_MANY, SHORT_LATENCY_SECONDS = 300, 0.25
"""The short form: a look's own work, which a busy machine multiplies, is little beside the server's time."""
_ANSWER = b'{"fulfillment_status":2,"execution_status":2,"proof":[]}'
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)


class SlowServer:
    """Answers every look after a while, as many at the same time as ask."""

    def __init__(self, latency_seconds: float) -> None:
        self._latency_seconds = latency_seconds
        self.arrived: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.arrived.append(time.monotonic())
                await asyncio.sleep(self._latency_seconds)
                writer.write(_REPLY)
                await writer.drain()
        writer.close()


async def polling(world: World, outcome: Outcome) -> None:
    """Time one round, and the same looks one after the other, of which a tenth is enough to know."""
    many, latency = (SHORT_MANY, SHORT_LATENCY_SECONDS) if outcome.short else (MANY, LATENCY_SECONDS)
    server, one_by_one = SlowServer(latency), many // 10
    ledger = world.ledger()
    async with (
        await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening,
        world.devnet(l1_block_time_s=1.0, l2_blocks_per_second=0.0) as devnet,
    ):
        port = listening.sockets[0].getsockname()[1]
        async with proposer_of(devnet, ledger.url, server_url=f"http://127.0.0.1:{port}") as proposer:
            await asyncio.to_thread(_fill, ledger.url, many)
            await proving.look(proposer)
            await asyncio.gather(*proposer.rounds)
            arrived = server.arrived
            took = arrived[-1] - arrived[0]
            if len(arrived) != many:
                raise RuntimeError(f"{len(arrived)} looks arrived instead of {many}")
            server.arrived = []
            await _one_by_one(proposer, one_by_one)
            sequential = (server.arrived[-1] - server.arrived[0]) * (many - 1) / (one_by_one - 1)
    said = f"{many:,} requests in proving, server latency {latency * 1000:.0f} ms: first look to last of a round"
    one = f"the seed's policy, one after the other: {one_by_one} looks scaled to {many:,}"
    figure = plain("poll_round_s", took, "s", said) if outcome.short else below("poll_round_s", took, 5, "s", said)
    outcome.figures += [
        figure,
        plain("seed_poll_round_s", sequential, "s", one),
        above("poll_round_ratio", sequential / took, 5 if outcome.short else 10, "", "the seed's policy to ours"),
    ]


async def _one_by_one(proposer: Proposer, many: int) -> None:
    """Look as the seed does."""
    waiting = [r for r in (await proposer.ledger.view(0)).requests if r.status is Status.PROVING]
    for request in waiting[:many]:
        assert request.prover_id is not None
        with suppress(ProposerError):
            await proposer.server.status(request.prover_id)


def _fill(url: str, many: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO proof_requests (kind, start_block, end_block, status, attempt, prover_request_id, requested_at,
                claimed_epoch, next_poll_at, range_vkey, agg_vkey, config_hash, l1_head, l1_head_hash)
            SELECT 'RANGE', 1000 + i * 50, 1050 + i * 50, 'PROVING', 1, encode(sha256(i::text::bytea), 'hex'), now(), 1,
                   now(), word, word, word, 1, word
              FROM generate_series(0, %s) AS i, (SELECT sha256('\\x00'::bytea) AS word) AS made
            """,
            (many - 1,),
        )
