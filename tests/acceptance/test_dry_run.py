"""Without a key: decisions are shown in the log, in Prefect and in the terminal; nothing is asked, sent or written."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import psycopg

from infra.devnet import Devnet
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import ROOT, Ledger, Prefect, Row, Up, eventually, settled
from tests.devnets import StartDevnet
from tests.everything import everything

NO_KEY: dict[str, str | None] = {"PRIVATE_KEY": None, "DRY_RUN": "true"}


async def _plan(one: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deployments.cli", "plan", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=one.environment, capture_output=True, text=True, timeout=120, check=False
        )

    return await asyncio.to_thread(run)


async def _dry_cycles(prefect: Prefect, since: int = 0) -> list[Row]:
    cycles = await prefect.runs("propose-cycle", tags={"all_": ["dry-run"]})
    ended = [run for run in cycles if run["state"]["type"] not in {"PENDING", "RUNNING"}]
    return ended if len(ended) > since else []


async def _world(devnet: Devnet, prefect: Prefect, url: str) -> list[Any]:
    """Return all that a dry run must not touch, in the ledger, on the chain, at the server and in Prefect."""
    asked = [event for event in devnet.prover.log.events if event["event"] in {"post", "paid", "answered"}]
    documents = await prefect.all("/block_documents/filter", {"include_secrets": True})
    return [
        everything(url),
        asked,
        await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "pending"),
        sorted(run["id"] for run in await prefect.runs("prove")),
        [(d["id"], d["updated"], d["data"]) for d in documents],
        [(d["id"], d["updated"]) for d in await prefect.all("/deployments/filter")],
        [pool["name"] for pool in await prefect.all("/work_pools/filter")],
    ]


async def test_a_dry_run_beside_a_ledger_shows_what_is_next_and_changes_nothing(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """What a stopped proposer left is decided on, as its account; a live one leads and settles beside the dry run."""
    devnet = await start_devnet()
    live = up(devnet)
    await rows.having("kind = 'AGG' AND status = 'COMPLETE' OR status = 'RELAYED'", alive=live)
    await settled(devnet, 1100, live)
    await rows.at_rest(live)
    assert await live.terminate() == 0
    devnet.l2.advance_to(1200)
    await prefect.equal(rows)
    before = await _world(devnet, prefect, rows.url)

    dry = up(devnet, name="dry", **NO_KEY)
    first = await eventually("two dry cycles", lambda: _dry_cycles(prefect, 1), alive=dry)
    assert all(run["state"]["type"] == "COMPLETED" and run["parameters"]["dry_run"] for run in first)
    assert all(run["name"].startswith("dry run · would plan 2 · would request 2") for run in first)

    async def staged() -> bool:
        tasks = await prefect.all("/task_runs/filter", {"flow_runs": {"id": {"any_": [first[0]["id"]]}}})
        return "RequestQueuedProofs" in {task["name"].rpartition("-")[0] for task in tasks}

    await eventually("its stages are tasks", staged, alive=dry)
    post = f"POST {devnet.prover_url}/request_span_proof {{'start': 1100, 'end': 1150}}"

    async def said() -> bool:
        return post in "\n".join(await prefect.log(first[0]["id"]))

    await eventually(post, said, alive=dry)

    shown = await _plan(dry, "--json")
    assert shown.returncode == 0, shown.stderr
    plan = json.loads(shown.stdout)
    assert (plan["account"], plan["contract"]) == (devnet.proposer_address, devnet.oracle_address)
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    assert stages["GetRangeProofBoundaries"]["did"] == [
        "would plan 1100→1150 (attempt 1)",
        "would plan 1150→1200 (attempt 1)",
    ]
    assert [one["body"] for one in stages["RequestQueuedProofs"]["would"]] == [
        {"start": 1100, "end": 1150},
        {"start": 1150, "end": 1200},
    ]
    table = await _plan(dry)
    assert (table.returncode, "would plan 1100→1150" in table.stdout) == (0, True), table.stderr
    assert await _world(devnet, prefect, rows.url) == before

    live.start()
    await settled(devnet, 1200, live)
    assert rows.query("SELECT epoch FROM leadership") == [{"epoch": 2}]
    assert await dry.terminate() == 0


async def test_a_dry_run_needs_neither_key_nor_ledger(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, empty_database_url: str
) -> None:
    """A database without a ledger is left without one; without the key and without DRY_RUN both ways are offered."""
    devnet = await start_devnet()
    before = await _world(devnet, prefect, empty_database_url)
    dry = up(devnet, DATABASE_URL=empty_database_url, **NO_KEY)
    await eventually("a dry cycle", lambda: _dry_cycles(prefect), alive=dry)
    assert "decided on an empty ledger" in dry.output
    assert "SIGNER_ADDRESS" in dry.output
    assert await dry.terminate() == 0
    assert await _world(devnet, prefect, empty_database_url) == before
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relname = 'proof_requests'").fetchone() == (0,)

    refused = up(devnet, name="refused", DATABASE_URL=empty_database_url, PRIVATE_KEY=None)
    assert await refused.ended() == 2
    assert "PRIVATE_KEY: not set; set it" in refused.output
    assert "SIGNER_URL" in refused.output
    assert "proposer up --dry-run" in refused.output
