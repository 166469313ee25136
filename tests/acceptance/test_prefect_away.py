"""Prefect's server is away: settlement goes on, and its history is completed afterwards."""

import asyncio
import os
import time

from infra.devnet import Devnet, Fault, FaultPlan
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import PATIENCE, Hold, Ledger, Prefect, Up, eventually, measured, settled
from tests.acceptance.prefect_servers import SessionServer
from tests.devnets import StartDevnet

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "3"))
"""How long Prefect's server is away at least."""
OUTPUTS = 20
"""How many outputs come due in a long outage."""


async def test_settlement_goes_on_and_history_catches_up(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, prefect_server: SessionServer, rows: Ledger
) -> None:
    """Outputs are settled while the server is away; when it is back every run shows the truth, failures too.

    The answer of a POST, the completion of a proof and the end of a cycle, all begun before, fall into the outage.
    """
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unfulfillable", block=1220, first=1),)))
    one = up(devnet, WITNESS_GEN_TIMEOUT="300s")
    process = one.process
    await settled(devnet, 1100, one)
    answer = Hold(devnet.traps, "prover.range.paid", start=1150)
    proof = Hold(devnet.traps, "prover.proof.answering", start=1100)
    devnet.l2.advance_to(1200)
    await asyncio.gather(answer.reached(), proof.reached())
    await _shows(prefect, rows, {"RUNNING/WitnessGen": 1150, "RUNNING/Proving": 1100})
    cycle = Hold(devnet.traps, "node.optimism_syncStatus.arrived")  # the looks wait for the proof
    await cycle.reached()
    cycles = len(await prefect.cycles())
    prefect_server.stop()
    began = time.monotonic()
    for held in (answer, proof, cycle):
        held.let_go()
    outputs = await _settle_for(OUTAGE_SECONDS, devnet, one)
    away = time.monotonic() - began

    prefect_server.start()
    began = time.monotonic()
    await prefect.equal(rows, seconds=PATIENCE + away)
    true_after = time.monotonic() - began
    measured(
        f"Prefect's server away for {away:.0f} s: {outputs} outputs meanwhile, all runs true {true_after:.1f} s later"
    )
    assert one.process is process and one.returncode is None
    await rows.at_rest(one)
    await prefect.equal(rows)
    await _every_story_is_told_once(prefect, rows)
    await _no_cycle_is_left_running(prefect)
    devnet.l2.advance_to(await devnet.latest_block_number() + 100)
    await settled(devnet, devnet.l2.finalized, one)
    await prefect.equal(rows)
    assert len(await prefect.cycles()) > cycles, "cycles are recorded again"


async def _shows(prefect: Prefect, rows: Ledger, wanted: dict[str, int]) -> None:
    """Wait until the runs of the open ranges, by their first block, show these states."""

    async def look() -> bool:
        shown: dict[str, int] = {}
        for row in rows.requests("status IN ('WITNESSGEN', 'PROVING') AND flow_run_id IS NOT NULL"):
            state = (await prefect.run(row["flow_run_id"]))["state"]
            shown[f"{state['type']}/{state['name']}"] = row["start_block"]
        return shown == wanted

    await eventually(f"Prefect shows {wanted}", look)


async def _settle_for(seconds: float, devnet: Devnet, one: Up) -> int:
    """Have outputs come due for so long, two at least; return how many were settled."""
    began, outputs = time.monotonic(), 0
    while outputs < 2 or time.monotonic() - began < seconds:
        await settled(devnet, 1200 + 100 * outputs, one)
        outputs += 1
        await asyncio.sleep(max(0.0, began + outputs * seconds / OUTPUTS - time.monotonic()))
        devnet.l2.advance_to(1200 + 100 * outputs)
    return outputs


async def _every_story_is_told_once(prefect: Prefect, rows: Ledger) -> None:
    (failed,) = rows.requests("status = 'FAILED'")
    assert (await prefect.run(failed["flow_run_id"]))["state"]["name"] == "Unfulfillable"
    for row in rows.requests():
        log = await prefect.log(row["flow_run_id"])
        events = rows.query(
            "SELECT why FROM request_events WHERE request_id = %s AND id <= %s", row["id"], row["mirrored_event"]
        )
        assert len(log) == len(events), "no line is missing and none is told twice"
    runs = [tag for run in await prefect.runs("prove") for tag in run["tags"] if tag.startswith("request-")]
    assert sorted(runs) == sorted({*runs}), "one run for each request"


async def _no_cycle_is_left_running(prefect: Prefect) -> None:
    """Wait until at most the newest cycle still runs: the one that the outage cut has its end."""

    async def look() -> bool:
        under_way = sorted(
            (run for run in await prefect.cycles() if run["state"]["type"] not in {"COMPLETED", "FAILED", "CRASHED"}),
            key=lambda run: run["start_time"] or run["expected_start_time"],
        )
        newest = max(run["expected_start_time"] for run in await prefect.cycles())
        return all(run["expected_start_time"] == newest for run in under_way)

    await eventually("no cycle is left running", look)
