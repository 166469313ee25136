"""The process dies, stops or is replaced: nothing is lost, nothing is asked twice, work goes on soon."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from infra.devnet import Devnet, ProverTiming
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import Hold, Ledger, Prefect, Row, Up, eventually, settled
from tests.devnets import StartDevnet


async def _next_event(rows: Ledger, after: int, up: Up, seconds: float) -> float:
    """Wait for the ledger to go on; return the seconds it took."""
    started = time.monotonic()

    async def look() -> bool:
        (row,) = rows.query("SELECT coalesce(max(id), 0) AS last FROM request_events")
        return row["last"] > after

    await eventually("the ledger goes on", look, seconds=seconds, alive=up)
    return time.monotonic() - started


def _last_event(rows: Ledger) -> int:
    (row,) = rows.query("SELECT max(id) AS last FROM request_events")
    last: int = row["last"]
    return last


async def test_after_a_kill_proofs_are_taken_up_by_their_ids(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """Killed while two ranges are proven: work goes on within 15 s of the restart, and nothing is asked again."""
    devnet = await start_devnet(timing=ProverTiming(0.2, 8.0, 0.2, 0.4))
    one = up(devnet, POLL_INTERVAL="1s")
    proving = await rows.having("status = 'PROVING'", at_least=2, alive=one)
    one.kill()
    last = _last_event(rows)
    await eventually("three cycles are overdue", lambda: _overdue(prefect, 3))
    one.start()
    assert await _next_event(rows, last, one, 15) < 15
    await settled(devnet, 1100, one)
    ids = {row["id"]: row["prover_request_id"] for row in proving}
    assert {row["id"]: row["prover_request_id"] for row in rows.requests("kind = 'RANGE'")} == ids
    assert [event["event"] for event in devnet.prover.log.events if event["kind"] == "range"].count("post") == 2
    await prefect.equal(rows)

    async def none_is_overdue() -> bool:
        return not await _overdue(prefect, 2)

    await eventually("the overdue cycles are closed", none_is_overdue)
    assert len([run for run in await prefect.cycles() if run["state"]["name"] == "Skipped"]) >= 2


async def _overdue(prefect: Prefect, at_least: int) -> bool:
    """Whether so many scheduled cycles were to start before now."""
    before = {"before_": datetime.now(UTC).isoformat()}
    waiting = {"type": {"any_": ["SCHEDULED"]}}
    return len(await prefect.runs("propose-cycle", state=waiting, expected_start_time=before)) >= at_least


async def test_sigterm_drains(start_devnet: StartDevnet, up: StartUp, rows: Ledger, prefect: Prefect) -> None:
    """What was asked is answered and written down before the end; nothing new is asked; the exit is clean."""
    devnet = await start_devnet()
    answers = Hold(devnet.traps, "prover.range.paid")
    one = up(devnet, WITNESS_GEN_TIMEOUT="300s", DRAIN_TIMEOUT="60s")
    asked = await rows.having("status = 'WITNESSGEN'", at_least=2, alive=one)
    await eventually("both are paid and Prefect knows them", lambda: _paid_and_shown(devnet, prefect, asked), alive=one)
    stopping = asyncio.create_task(one.terminate())
    await one.says("stopping: 2 requests to be answered")  # a cycle under way has ended
    started = time.monotonic()
    answers.let_go()
    assert await stopping == 0
    told_later = "Prefect's history is completed at the next start" in one.output
    assert time.monotonic() - started < (13 if told_later else 8), "Prefect has 5 s"
    assert [row["status"] for row in rows.requests()] == ["PROVING", "PROVING"]
    assert [event["event"] for event in devnet.prover.log.events].count("answered") == 2
    left = await asyncio.to_thread(_processes_of, one)
    assert left == []
    if told_later:
        one.start()
        await prefect.equal(rows)
        return
    await prefect.equal(rows, seconds=1)
    for run in await prefect.cycles():
        assert run["state"]["type"] == "COMPLETED", run["state"]


async def _paid_and_shown(devnet: Devnet, prefect: Prefect, asked: list[Row]) -> bool:
    """Whether every POST waits for its answer only, and its run says so."""
    shown = Counter(run["state"]["name"] for run in await prefect.runs("prove"))
    return len(devnet.prover.log.of("paid")) == shown["WitnessGen"] == len(asked)


def _processes_of(up: Up) -> list[str]:
    """Return the command lines of processes that live in the instance's home."""
    marker = f"PROPOSER_HOME={up.home}\0".encode()
    found: list[str] = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and marker in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def test_a_standby_takes_over(start_devnet: StartDevnet, up: StartUp, rows: Ledger) -> None:
    """A second process on the same ledger stands by; after kill -9 of the first it goes on within 15 s."""
    devnet = await start_devnet(timing=ProverTiming(0.2, 8.0, 0.2, 0.4))
    first = up(devnet, "first")
    await first.says("leading with epoch 1")
    second = up(devnet, "second")
    await second.says("leads: standing by")
    await settled(devnet, 1100, first)
    devnet.l2.advance_to(1200)
    await rows.having("status = 'PROVING'", at_least=2, alive=first)
    first.kill()
    last = _last_event(rows)
    assert await _next_event(rows, last, second, 15) < 15
    await settled(devnet, 1200, second)
    assert "leading with epoch 2" in second.output
    posts = [event for event in devnet.prover.log.events if event["event"] == "post" and event["kind"] == "range"]
    assert len(posts) == 4, "nothing was asked twice"
    assert await second.terminate() == 0
