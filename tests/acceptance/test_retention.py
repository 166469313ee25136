"""Prefect's own vacuum, with the settings that are shipped, keeps its database bounded."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.prefect_server import RETENTION
from infra.devnet import ProverTiming
from tests.acceptance.helpers import QUICK, Ledger, Up, eventually, settled
from tests.acceptance.prefect_history import History
from tests.acceptance.prefect_servers import ServerByScript
from tests.devnets import StartDevnet

CYCLES = int(os.environ.get("RETENTION_CYCLES", "300"))
"""All cycles of the measurement; `make retention` takes 10,000."""

ROUNDS = 4
DAYS = 30
"""What one round stands for; the shipped retention of runs, so that each round displaces the one before."""
EVENT_DAYS = 2
EVENTS = ("events", "event_resources")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerByScript]:
    """A Prefect server with the shipped retention, whose vacuum looks often; not started."""
    often = {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS": "2",
    }
    script = ServerByScript(tmp_path, {**RETENTION, **often})
    yield script
    script.stop()
    sys.stdout.write(script.output[-3000:])


@pytest.mark.timeout(3600)
async def test_the_vacuum_keeps_prefects_database_bounded(
    start_devnet: StartDevnet,
    database_url: str,
    tmp_path: Path,
    server: ServerByScript,
) -> None:
    """Month after month of cycles, proofs, logs, events and artifacts: what is older than the retention goes."""
    history = History(server.database)
    await _real_cycles(start_devnet, database_url, tmp_path, server, history)
    per_copy = history.cycles()
    history.keep_as_sample()
    copies = max(4, CYCLES // ROUNDS // per_copy)
    held: list[dict[str, int]] = []
    added: dict[str, int] = {}
    sizes: list[float] = []
    for number in range(ROUNDS):
        ago = (ROUNDS - 1 - number) * DAYS
        history.add(copies, DAYS, first=1 + number * copies, ago=ago)
        full, megabytes = history.counts(), history.megabytes()
        added = added or full
        await _vacuumed(server, history, ago)
        held.append(history.counts())
        sizes.append(history.megabytes())
        _say(f"month {number + 1}: {copies * per_copy} more cycles, {full} rows, {megabytes:.1f} MB in use")
        _say(f"  after the vacuum: {held[-1]} rows, {sizes[-1]:.1f} MB; file {history.file_megabytes():.1f} MB")
    one_month = {table: count for table, count in held[0].items() if table not in EVENTS}
    for counts in held[1:]:
        for table, count in one_month.items():
            assert count * 0.9 <= counts[table] <= count * 1.1, f"{table}: {counts[table]} rows, {count} a month before"
        for table in EVENTS:
            at_most = added[table] * (EVENT_DAYS / DAYS + 1 / copies) + 200  # a copy may reach into the days kept
            assert counts[table] <= at_most, f"{table}: {counts[table]} rows"
    assert sizes[-1] < sizes[0] * 1.15, f"the database grows: {sizes} MB"
    _say(f"{per_copy} real cycles, copied {copies} times a month")


async def _real_cycles(
    start_devnet: StartDevnet, database_url: str, tmp_path: Path, server: ServerByScript, history: History
) -> None:
    """Have a real proposer run real cycles, idle ones and two settlements, and stop everything again."""
    devnet = await start_devnet(timing=ProverTiming(0.2, 0.4, 0.2, 0.4))
    server.start()
    up = Up(
        tmp_path / "home",
        {
            **devnet.env(),
            **QUICK,
            "POLL_INTERVAL": "1s",
            "DATABASE_URL": database_url,
            "PREFECT_API_URL": server.api_url,
        },
    ).start()
    try:
        await settled(devnet, 1100, up)
        devnet.l2.advance_to(1200)
        await settled(devnet, 1200, up)

        async def enough() -> bool:
            return history.cycles() >= 40

        await eventually("40 cycles", enough, seconds=300, alive=up)
        assert not Ledger(database_url).requests("status <> 'RELAYED'")
        assert await up.terminate() == 0
    finally:
        up.kill()
        await asyncio.sleep(3)  # its last events are still being written
        server.stop()


async def _vacuumed(server: ServerByScript, history: History, ago: int) -> None:
    """Run the server as of so many days ago, by keeping so much longer, until its vacuum has nothing left to do."""
    server.start(
        PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD=str(86400 * (ago + DAYS)),
        PREFECT_SERVER_EVENTS_RETENTION_PERIOD=f"P{ago + EVENT_DAYS}D",
    )
    try:

        async def done() -> bool:
            return not history.overdue(ago + DAYS, ago + EVENT_DAYS)

        await eventually("the vacuum is done", done, seconds=1200, every=2)
    finally:
        server.stop()


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
