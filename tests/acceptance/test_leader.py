"""One leader: a stopped one is replaced soon, and when it wakes it neither writes nor sends; a killed one as well."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg

from infra.devnet import Devnet
from infra.devnet.checker import PROPOSE_SELECTOR
from infra.devnet.postgres_proxy import PostgresProxy
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import PATIENCE, Hold, Ledger, Prefect, acted, eventually, judged, measured, settled
from tests.devnets import StartDevnet

TAKEOVER_SECONDS = 15.0


class Wire:
    """A relay before a server that one process alone uses: what that one sends is told from everybody else's."""

    def __init__(self, url: str) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._sent: list[bytearray] = []
        self._server: asyncio.Server
        self.url = ""

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no longer."""
        self._server.close()

    def count(self, word: bytes) -> int:
        """Return how often a word was sent."""
        return sum(sent.count(word) for sent in self._sent)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = bytearray()
        self._sent.append(sent)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(self._host, self._port)
            await asyncio.gather(_pump(reader, back, sent), _pump(there, writer, bytearray()))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            seen += data
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Wires:
    """Everything that one process asks of the prover and sends to L1."""

    def __init__(self, devnet: Devnet) -> None:
        self.prover, self.l1 = Wire(devnet.prover_url), Wire(devnet.l1_rpc)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen."""
        for wire in (self.prover, self.l1):
            await self._stack.enter_async_context(wire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no longer."""
        await self._stack.aclose()

    def spent(self) -> tuple[int, int]:
        """Return how many proofs it asked for and how many transactions it sent."""
        return self.prover.count(b"POST /request_"), self.l1.count(b"eth_sendRawTransaction")

    def environment(self) -> dict[str, str]:
        """Return the settings of the process whose wires these are."""
        return {"L1_RPC": self.l1.url, "OP_SUCCINCT_SERVER_URL": self.prover.url}


async def test_a_stopped_leader_is_replaced_and_does_nothing_when_it_wakes(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """SIGSTOP when a proposal is journaled and not yet sent: the standby goes on in its time, and the sleeper notices.

    One POST is in flight, whose answer only the sleeper gets: it leaves the id for the new leader, and nothing is asked
    twice. One request is being proven. When the new leader is killed in its turn, the old one leads again.
    """
    devnet = await start_devnet()
    async with Wires(devnet) as wires, PostgresProxy.before(rows.url, traps=devnet.traps) as proxy:
        database = proxy.url(urlsplit(rows.url).path.removeprefix("/"))
        first = up(devnet, "first", WITNESS_GEN_TIMEOUT="300s", DATABASE_URL=database, **wires.environment())
        await first.says("leading with epoch 1")
        second = up(devnet, "second", WITNESS_GEN_TIMEOUT="300s")
        await second.says("leads: standing by")
        await settled(devnet, 1100, first)
        aggregation = Hold(devnet.traps, "prover.proof.answering", kind="aggregation", end=1200)
        devnet.l2.advance_to(1200)
        await aggregation.reached()
        devnet.prover.timing.range_proving_s = 8.0
        answer = Hold(devnet.traps, "prover.range.paid", start=1250)
        devnet.l2.advance_to(1300)
        await answer.reached()
        (proven,) = await rows.having("status = 'PROVING' AND start_block = 1200", alive=first)
        stopped = asyncio.Event()

        async def stop(facts: Mapping[str, Any]) -> bool:
            if "l1_signed" not in facts["wrote"]:
                return False
            os.kill(first.process.pid, signal.SIGSTOP)
            stopped.set()
            return True

        devnet.traps.arm("postgres.commit.done", stop)
        aggregation.let_go()
        await asyncio.wait_for(stopped.wait(), PATIENCE)
        answer.let_go()  # into the sleeper's socket
        proof = Hold(devnet.traps, "prover.proof.answering", start=1250)
        before = wires.spent()
        took = await acted(rows, "epoch = 2", second, TAKEOVER_SECONDS)
        measured(f"the standby worked {took:.1f} s after the SIGSTOP")
        await settled(devnet, 1200, second)

        first.process.send_signal(signal.SIGCONT)
        await first.says("leads: standing by")
        await rows.having("status = 'PROVING' AND start_block = 1250", alive=second)
        assert rows.requests(f"id = {proven['id']}")[0]["prover_request_id"] == proven["prover_request_id"]
        assert wires.spent() == before, "the old leader asks and sends nothing"
        assert _written_after_takeover(rows, epoch=1) == [], "and writes nothing"

        second.kill()
        proof.let_go()
        again = await acted(rows, "epoch = 3", first, TAKEOVER_SECONDS)
        measured(f"the old leader worked {again:.1f} s after the kill of the new one")
        await settled(devnet, 1300, first)
        assert wires.spent()[1] > before[1], "it sends again"
        await rows.having("status = 'RELAYED' AND kind = 'AGG'", at_least=3, alive=first)
        await prefect.equal(rows)
    report = await judged(devnet, rows)
    assert report.unknown_outcomes == 0
    asked = Counter(event["start"] for event in devnet.prover.log.of("post") if event["kind"] == "range")
    assert asked == {1000: 1, 1050: 1, 1100: 1, 1150: 1, 1200: 1, 1250: 1}


async def test_who_stops_after_its_leadership_leaves_what_it_asked_for_to_the_next(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """Robbed of the leadership with a POST under way, it waits for the answer, also while it stops."""
    devnet = await start_devnet()
    answer = Hold(devnet.traps, "prover.range.paid", start=1050)
    one = up(devnet, DRAIN_TIMEOUT="60s", WITNESS_GEN_TIMEOUT="300s")
    await answer.reached()
    with psycopg.connect(rows.url, autocommit=True) as thief:
        thief.execute("UPDATE leadership SET owner = 'thief', epoch = epoch + 1, expires_at = now() + interval '1 h'")
        await one.says("thief leads: standing by")
        stopping = asyncio.create_task(one.terminate())
        await one.says("requests of a former leadership")
        answer.let_go()
        assert await stopping == 0
        assert "is left for the one that leads" in one.output
        thief.execute("UPDATE leadership SET expires_at = now()")
    one.start()
    await settled(devnet, 1100, one)
    assert [event["start"] for event in devnet.prover.log.of("post") if event["kind"] == "range"] == [1000, 1050]
    assert "answered to a process that leads no more" in one.output
    await prefect.equal(rows)
    await rows.at_rest(one)
    assert (await judged(devnet, rows)).unknown_outcomes == 0


def _written_after_takeover(rows: Ledger, epoch: int) -> list[dict[str, Any]]:
    return rows.query(
        "SELECT * FROM request_events WHERE epoch = %s AND id > (SELECT min(id) FROM request_events WHERE epoch > %s)",
        epoch,
        epoch,
    )


async def test_killed_between_a_broadcast_and_its_answer(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """F02: the proposal is on the chain and nobody knows: it is found there, and its request says with which hash."""
    devnet = await start_devnet()
    one = up(devnet)
    killed: list[str] = []

    async def kill(facts: Mapping[str, Any]) -> bool:
        if PROPOSE_SELECTOR.removeprefix("0x") not in facts["params"][0]:
            return False
        one.kill()
        killed.append(facts["answer"]["result"])
        return True

    devnet.traps.arm("l1.eth_sendRawTransaction.forwarded", kill)

    async def dead() -> bool:
        return bool(killed)

    await eventually("the leader is killed", dead)
    one.start()
    (request,) = await rows.having("status = 'RELAYED' AND kind = 'AGG'", alive=one)
    events = rows.query("SELECT * FROM request_events WHERE request_id = %s ORDER BY id", request["id"])
    (relayed,) = (event for event in events if event["to_status"] == "RELAYED" != event["from_status"])
    assert relayed["epoch"] == 2
    assert killed[0] in relayed["why"]
    await eventually("the transaction is settled", lambda: _confirmed(rows, killed[0]), alive=one)
    proposals = rows.query("SELECT * FROM l1_transactions WHERE purpose = 'propose'")
    assert [proposal["mined_hash"].hex() for proposal in proposals] == [killed[0].removeprefix("0x")]
    assert devnet.traps.counts["l1.eth_sendRawTransaction.arrived"] == 2, "one checkpoint and one proposal"
    await judged(devnet, rows)
    await prefect.equal(rows)


async def _confirmed(rows: Ledger, tx_hash: str) -> bool:
    found = rows.query("SELECT status FROM l1_transactions WHERE mined_hash = %s", bytes.fromhex(tx_hash[2:]))
    return [row["status"] for row in found] == ["CONFIRMED"]
