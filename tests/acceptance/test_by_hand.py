"""What an operator does by hand in Prefect: a cycle, a dry run, taking a parked request up, cancelling."""

import asyncio
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

from infra.devnet import Fault, FaultPlan
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import Hold, Ledger, Prefect, Row, eventually, settled
from tests.devnets import StartDevnet

Cli = Callable[..., CompletedProcess[str]]


async def run(prefect_cli: Cli, *arguments: str) -> CompletedProcess[str]:
    return await asyncio.to_thread(prefect_cli, "deployment", "run", *arguments, "--watch")


def everything(rows: Ledger) -> list[list[Row]]:
    """Return all that a cycle could write but marks of what it saw."""
    tables = ("proof_requests", "request_events", "l1_transactions", "l1_signed", "proofs")
    mirrors = {"flow_run_id", "mirrored_event", "cycle_run_id"}
    return [
        [{k: v for k, v in row.items() if k not in mirrors} for row in rows.query(f"SELECT * FROM {t} ORDER BY 1")]
        for t in tables
    ]


async def test_a_cycle_by_hand_runs_once_and_a_dry_run_changes_nothing(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, prefect_cli: Cli, rows: Ledger
) -> None:
    """`prefect deployment run` ends 0 with one more run; with `dry_run=true` nothing is written or sent."""
    devnet = await start_devnet()
    one = up(devnet, POLL_INTERVAL="1h")
    await settled(devnet, 1100, one)
    await rows.having("kind = 'AGG' AND status = 'RELAYED'", alive=one)

    async def confirmed() -> bool:
        return not rows.query("SELECT id FROM l1_transactions WHERE status NOT IN ('CONFIRMED')")

    await eventually("every transaction is confirmed", confirmed)
    before, posts = everything(rows), len(devnet.prover.log.events)
    nonce = await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "latest")
    by_hand, dry = await asyncio.gather(
        run(prefect_cli, "propose-cycle/proposer"), run(prefect_cli, "propose-cycle/proposer", "-p", "dry_run=true")
    )
    assert (by_hand.returncode, dry.returncode) == (0, 0), by_hand.stdout + by_hand.stderr + dry.stdout + dry.stderr
    manual = [r for r in await prefect.cycles() if not r["auto_scheduled"] and not r["idempotency_key"]]
    assert sorted(r["parameters"].get("dry_run", False) for r in manual) == [False, True]
    assert {r["state"]["type"] for r in manual} == {"COMPLETED"}
    assert everything(rows) == before
    assert len(devnet.prover.log.events) == posts
    assert await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "latest") == nonce
    wrong = await run(prefect_cli, "propose-cycle/proposer", "-p", "max_concurrent_witness_gen=0")
    assert wrong.returncode != 0


async def test_a_parked_request_is_taken_up_by_hand(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, prefect_cli: Cli, rows: Ledger
) -> None:
    """Out of attempts a request is parked and says how to take it up; doing so settles the blocks behind it."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unfulfillable", block=1010, first=1),)))
    one = up(devnet, MAX_ATTEMPTS="1")
    (parked,) = await rows.having("status = 'PARKED'", alive=one)
    await prefect.equal(rows)
    (parked,) = rows.requests("status = 'PARKED'")
    shown = await prefect.run(parked["flow_run_id"])
    assert (shown["state"]["type"], shown["state"]["name"]) == ("FAILED", "Parked")

    async def advised() -> bool:
        messages = [r["state"]["message"] or "" for r in await prefect.cycles()]
        return any(f"Request {parked['id']}" in message and "parked" in message for message in messages)

    await eventually("a cycle names the parked request", advised)
    taken = await run(prefect_cli, "prove/proposer", "-p", f"request_id={parked['id']}")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    await settled(devnet, 1100, one)
    await prefect.equal(rows)
    assert rows.history(parked["id"])[:5] == ["PARKED", "UNREQ", "WITNESSGEN", "PROVING", "COMPLETE"]
    unknown = await run(prefect_cli, "prove/proposer", "-p", "request_id=999")
    assert unknown.returncode != 0


async def _run_of(prefect: Prefect, rows: Ledger, where: str, state: str) -> Row:
    """Wait for the request's run to show this state; return the request."""

    async def look() -> Any:
        for row in rows.requests(where):
            if row["flow_run_id"] and (await prefect.run(row["flow_run_id"]))["state"]["name"] == state:
                return row
        return None

    return await eventually(f"a run of {where} shows {state}", look)


async def test_cancelling_a_proof_parks_it_and_cancelling_a_cycle_loses_nothing(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """A cancelled proof is parked and, being paid, still collected; a cancelled cycle's proofs go on in new runs."""
    devnet = await start_devnet(l2_initial_finalized=1000)
    proofs = Hold(devnet.traps, "prover.proof.answering", kind="range")
    one = up(devnet)

    async def recorded() -> bool:
        return any(run["state"]["type"] == "COMPLETED" for run in await prefect.cycles())

    await eventually("Prefect has recorded a cycle", recorded, alive=one)  # the first may be run without it
    devnet.l2.advance_to(1100)
    first = await _run_of(prefect, rows, "start_block = 1000", "Proving")
    second = await _run_of(prefect, rows, "start_block = 1050", "Proving")
    await prefect.cancel(first["flow_run_id"])
    (parked,) = await rows.having("status = 'PARKED'", alive=one)
    assert (parked["id"], parked["failure"]) == (first["id"], "CancelledByOperator")

    cycle = await prefect.parent(await prefect.run(second["flow_run_id"]))
    cancelled = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
    await prefect.post(f"/flow_runs/{cycle['id']}/set_state", cancelled)
    (told_anew,) = await rows.having(
        f"id = {second['id']} AND story = 1 AND flow_run_id <> '{second['flow_run_id']}'", alive=one
    )
    assert told_anew["status"] == "PROVING"
    proofs.let_go()
    await settled(devnet, 1100, one)
    await prefect.equal(rows)
    assert rows.history(first["id"])[:5] == ["UNREQ", "WITNESSGEN", "PROVING", "PARKED", "COMPLETE"]
    assert "PARKED" not in rows.history(second["id"])
    assert len([event for event in devnet.prover.log.of("paid") if event["kind"] == "range"]) == 2
