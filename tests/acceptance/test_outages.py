"""What the proposer needs is away for long: nothing is spent meanwhile, nothing is lost, work resumes by itself."""

import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deployments.embedded_postgres import EmbeddedPostgres
from infra.devnet import Devnet
from infra.devnet.postgres_proxy import PostgresProxy
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import PATIENCE, Hold, Ledger, Prefect, acted, eventually, judged, measured, settled
from tests.devnets import StartDevnet

RESUMES_SECONDS = 15.0
HOUR_BLOCKS = 1800
"""An hour of L2 blocks, one every 2 s."""
HOUR_SECONDS = 10.0
"""How long that hour takes here."""


class Postgres:
    """A PostgreSQL of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = EmbeddedPostgres(folder)
        self.url = ""

    async def start(self) -> None:
        """Start it (again) and wait until it takes connections."""
        self.url = await self._server.start()

    async def crash(self) -> None:
        """Stop it at once, as `pg_ctl stop -m immediate` does, and wait for its end."""
        lock = self._folder / "postmaster.pid"
        os.kill(int(lock.read_text().split()[0]), signal.SIGQUIT)

        async def gone() -> bool:
            return not lock.exists()

        await eventually("PostgreSQL has stopped", gone)

    async def aclose(self) -> None:
        """Stop it for good."""
        await self._server.stop()


@pytest_asyncio.fixture
async def own_postgres() -> AsyncIterator[Postgres]:
    """Run a PostgreSQL that the test may stop."""
    with tempfile.TemporaryDirectory(prefix="own-postgres-") as folder:
        async with aclosing(Postgres(Path(folder) / "pg")) as server:
            await server.start()
            yield server


Outage = Callable[[Postgres, PostgresProxy], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _stopped(server: Postgres, proxy: PostgresProxy) -> AsyncIterator[None]:
    """Stop the server; connections are cut and refused."""
    await proxy.close()
    await server.crash()
    yield
    await server.start()
    await proxy.open()


@asynccontextmanager
async def _frozen(server: Postgres, proxy: PostgresProxy) -> AsyncIterator[None]:
    """Let connections hang, for longer than a leadership lasts."""
    proxy.freeze()
    yield
    proxy.thaw()


@pytest.mark.parametrize(("away", "seconds"), [(_stopped, 60.0), (_frozen, 13.0)], ids=["stopped", "frozen"])
async def test_postgresql_is_away(
    away: Outage,
    seconds: float,
    start_devnet: StartDevnet,
    up: StartUp,
    prefect: Prefect,
    own_postgres: Postgres,
) -> None:
    """Nothing is asked or sent without the ledger; what was paid before is written down after it; nothing twice.

    The answer of a POST and a proof, both asked for before, arrive meanwhile. The process lives through it.
    """
    devnet = await start_devnet()
    rows = Ledger(own_postgres.url)
    async with PostgresProxy.before(own_postgres.url) as proxy:
        one = up(devnet, DATABASE_URL=proxy.url("postgres"), WITNESS_GEN_TIMEOUT="300s")
        process = one.process
        await settled(devnet, 1100, one)
        answer = Hold(devnet.traps, "prover.range.paid", start=1150)
        proof = Hold(devnet.traps, "prover.proof.answering", start=1100)
        devnet.l2.advance_to(1200)
        await asyncio.gather(answer.reached(), proof.reached())
        spent, last = _spent(devnet), rows.last_event()
        async with away(own_postgres, proxy):
            answer.let_go()
            proof.let_go()
            devnet.l2.advance_to(1300)
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                assert one.returncode is None, "it lives through the outage"
                assert _spent(devnet) == spent, "nothing is asked or sent"
                await asyncio.sleep(0.1)
        resumed = await acted(rows, f"id > {last}", one, RESUMES_SECONDS)
        measured(f"PostgreSQL was away for {seconds:.0f} s; work went on {resumed:.1f} s afterwards")
        await settled(devnet, 1300, one)
        assert one.process is process and one.returncode is None
        await _nothing_lost_or_twice(devnet, rows)
        await prefect.equal(rows)


def _spent(devnet: Devnet) -> tuple[int, int, int]:
    counts = devnet.traps.counts
    return (
        counts["prover.range.arrived"],
        counts["prover.aggregation.arrived"],
        counts["l1.eth_sendRawTransaction.arrived"],
    )


async def _nothing_lost_or_twice(devnet: Devnet, rows: Ledger) -> None:
    async def answered() -> bool:
        return not rows.requests("status IN ('UNREQ', 'WITNESSGEN')")

    await eventually("every request is answered", answered)
    report = await judged(devnet, rows)
    assert (report.unknown_outcomes, report.reverted_transactions) == (0, 0)
    paid = devnet.prover.log.of("paid")
    known = {row["prover_request_id"] for row in rows.requests()}
    assert known == {event["proof_id"] for event in paid}, rows.requests("prover_request_id IS NULL")
    asked = Counter((event["kind"], event["start"], event["end"]) for event in devnet.prover.log.of("post"))
    assert [*asked.values()] == [1] * len(rows.requests()), asked
    assert {(row["attempt"], row["failure"]) for row in rows.requests()} == {(1, None)}


async def test_the_prover_is_away_for_an_hour(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """What was proven before is proposed meanwhile, nothing is paid, no attempt charged; then the hour is settled."""
    devnet = await start_devnet()
    one = up(devnet)
    await settled(devnet, 1100, one)

    async def stop(facts: Mapping[str, Any]) -> bool:
        if facts["kind"] != "aggregation" or facts["end"] != 1200:
            return False
        await devnet.prover.stop()
        return True

    stopping = devnet.traps.arm("prover.proof.answered", stop)
    devnet.l2.advance_to(1200)

    async def stopped() -> bool:
        return stopping.sprung

    await eventually("the prover is stopped", stopped, alive=one)
    spent = _spent(devnet)[:2], len(devnet.prover.log.of("paid"))
    began = time.monotonic()
    devnet.l2.limit = 1200 + HOUR_BLOCKS
    devnet.l2.set_speed(HOUR_BLOCKS / HOUR_SECONDS)
    await settled(devnet, 1200, one)
    waiting = await rows.having("status = 'UNREQ' AND failure_text LIKE 'nothing was asked%%'", alive=one)
    await asyncio.sleep(max(0.0, began + HOUR_SECONDS + 0.1 - time.monotonic()))
    assert devnet.l2.finalized == 1200 + HOUR_BLOCKS
    assert (_spent(devnet)[:2], len(devnet.prover.log.of("paid"))) == spent, "nothing is asked, nothing is paid"
    assert {row["attempt"] for row in rows.requests()} == {1}

    await devnet.prover.start()
    back = time.monotonic()
    await acted(rows, "to_status = 'PROVING' AND request_id = %s", one, PATIENCE, waiting[0]["id"])
    measured(f"the first request that waited was taken {time.monotonic() - back:.1f} s after the prover's return")
    # an output that ended at a range's end leaves less than an interval
    await settled(devnet, 1200 + HOUR_BLOCKS - 99, one, seconds=2 * PATIENCE)
    measured(f"the hour was settled {time.monotonic() - back:.1f} s after the prover's return")
    await _nothing_lost_or_twice(devnet, rows)
    await prefect.equal(rows)
