"""Two rollups by name on one Prefect server and one L1, one of them with a remote signer: neither touches the other."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from infra.devnet import Devnet, check
from infra.devnet.anvil import account_key
from infra.devnet.signer import SignerStandIn
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import ROOT, Hold, Ledger, Prefect, Row, Up, eventually, settled
from tests.devnets import StartDevnet

CHAIN = 31337
NAMES = ("op-a", "op-b")
OWN = {"WITNESS_GEN_TIMEOUT": "8s", "POLL_INTERVAL": "6s"}
PATIENCE = 120
"""Seconds: four processes and two devnets share the machine."""


@pytest_asyncio.fixture
async def signer() -> AsyncIterator[SignerStandIn]:
    """A Web3Signer with the second rollup's key, which no proposer has."""
    made = SignerStandIn(account_key(4)[1], CHAIN)
    await made.start()
    yield made
    await made.stop()


async def test_two_rollups_share_a_prefect_server(
    start_devnet: StartDevnet,
    up: StartUp,
    prefect: Prefect,
    signer: SignerStandIn,
    database_url: str,
    empty_database_url: str,
) -> None:
    """Both settle; blocks, cycles and proofs are each one's own, and so is what becomes of them."""
    first = await start_devnet(seed=1)
    second = await start_devnet(seed=2, beside=first, proposer_account=4)
    one = up(first, NAMES[0], PROPOSER_NAME=NAMES[0], **OWN)
    remote = {"PRIVATE_KEY": None, **signer.env(), "DATABASE_URL": empty_database_url}
    other = up(second, NAMES[1], PROPOSER_NAME=NAMES[1], **OWN, **remote)
    ledgers = [Ledger(database_url), Ledger(empty_database_url)]
    for devnet, process in ((first, one), (second, other)):
        await settled(devnet, 1100, process, seconds=PATIENCE)
    for ledger in ledgers:
        await prefect.equal(ledger)
    await _each_has_its_own(prefect, ledgers)
    refused = await _a_third_is_refused(up, first, second, one, empty_database_url)
    assert await _killed_or_cancelled_alone(prefect, (first, second), (one, other), ledgers)

    for devnet, process in ((first, one), (second, other)):
        await settled(devnet, 1200, process, seconds=PATIENCE)
    for devnet, ledger in zip((first, second), ledgers, strict=True):
        await _judged(devnet, ledger)
    assert {sent["from"] for sent in signer.signed} == {second.proposer_address}
    assert [process.returncode for process in refused] == [2, 2]


async def _each_has_its_own(prefect: Prefect, ledgers: list[Ledger]) -> None:
    """In Prefect: deployments, work pool, blocks, runs, and the cycles that planned them."""
    deployments = await prefect.all("/deployments/filter")
    flows = {flow["id"]: flow["name"] for flow in await prefect.all("/flows/filter")}
    names = {d["id"]: f"{flows[d['flow_id']]}/{d['name']}" for d in deployments}
    assert sorted(names.values()) == [f"{flow}/{name}" for flow in ("propose-cycle", "prove") for name in NAMES]
    assert {d["name"]: d["work_pool_name"] for d in deployments} == dict(zip(NAMES, NAMES, strict=True))
    documents = await prefect.all("/block_documents/filter")
    slugs = {name: {d["block_type"]["slug"] for d in documents if d["name"] == name} for name in NAMES}
    assert slugs["op-a"] ^ slugs["op-b"] == {"op-succinct-local-signer", "op-succinct-web3signer"}
    assert [len(slugs[name]) for name in NAMES] == [6, 6]
    runs = await prefect.runs("prove")
    for name, ledger in zip(NAMES, ledgers, strict=True):
        own = [run for run in runs if names[run["deployment_id"]] == f"prove/{name}"]
        assert {run["id"] for run in own} == {row["flow_run_id"] for row in ledger.requests()}
        assert all(f"rollup-{name}" in run["tags"] for run in own)
        for run in (run for run in own if run["parent_task_run_id"]):
            cycle = await prefect.parent(run)
            assert names[cycle["deployment_id"]] == f"propose-cycle/{name}"
            assert f"rollup-{name}" in cycle["tags"]


async def _a_third_is_refused(up: StartUp, first: Devnet, second: Devnet, one: Up, empty_database_url: str) -> list[Up]:
    """Under a third name with the first one's account and the second one's contract, or on the first one's ledger."""
    await second.owner_call("addProposer", first.proposer_address)
    own = {"PROPOSER_NAME": "op-c", "DATABASE_URL": empty_database_url}
    third = up(second, "op-c", **own, PRIVATE_KEY=first.proposer_key)
    same = up(first, "op-d", PROPOSER_NAME="op-d")
    applying = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deployments.cli", "apply", "--name", "op-e"),
        cwd=ROOT,
        env=one.environment,
        stderr=subprocess.PIPE,
    )
    _, said = await applying.communicate()
    await asyncio.gather(third.ended(30), same.ended(30))
    account, chain = first.proposer_address, f"on chain {CHAIN}"
    for name, text, owner in (
        ("op-c", third.output, "op-b"),
        ("op-d", same.output, "op-a"),
        ("op-e", said.decode(), "op-a"),
    ):
        assert f"PRIVATE_KEY: account {account} {chain} signs for rollup 'op-a' of this Prefect server" in text
        assert "give this one an account of its own" in text
        assert re.search(rf"L2OO_ADDRESS: contract 0x\w+ {chain} is proposed to by rollup '{owner}'", text), text
        assert f"and this is '{name}'" in text
        assert f"prefect variable unset op-succinct-signer-{CHAIN}-{account.lower()}" in text
    assert applying.returncode == 2
    return [third, same]


async def _killed_or_cancelled_alone(
    prefect: Prefect, devnets: tuple[Devnet, Devnet], processes: tuple[Up, Up], ledgers: list[Ledger]
) -> bool:
    """The first is killed in a cycle with a proof under way, the second starts anew beside it and settles."""
    (first, second), (one, other) = devnets, processes
    held = Hold(first.traps, "prover.range.arrived")
    first.l2.advance_to(1150)
    await held.reached()
    (open_one,) = await ledgers[0].having("status = 'WITNESSGEN'", alive=one)
    first.op_node.faults.hang = True

    async def cycle_runs() -> list[Row]:
        return [
            run for run in await prefect.cycles() if run["state"]["type"] == "RUNNING" and "rollup-op-a" in run["tags"]
        ]

    cycles = await eventually("a cycle of the first is under way", cycle_runs, alive=one)
    one.kill()
    assert await other.terminate() == 0
    other.start()
    second.l2.advance_to(1200)
    await settled(second, 1200, other, seconds=PATIENCE)
    await prefect.equal(ledgers[1])
    for run in (*cycles, await prefect.run(open_one["flow_run_id"])):
        now = await prefect.run(run["id"])
        assert now["state"]["type"] == "RUNNING", (now["name"], now["state"])
    first.op_node.faults.hang = False
    held.let_go()
    one.start()
    await prefect.cancel((await prefect.run(open_one["flow_run_id"]))["id"])
    await ledgers[0].having(f"id = {open_one['id']} AND status = 'PARKED'", alive=one)
    assert not ledgers[1].requests("status IN ('PARKED', 'CANCELLED', 'FAILED')")

    async def closed() -> bool:
        return (await prefect.run(cycles[0]["id"]))["state"]["type"] == "CRASHED"

    await eventually("the first closes its own cycle", closed, alive=one)
    taken = await asyncio.to_thread(_retry, one, open_one["id"])
    assert taken.returncode == 0, taken.stderr
    first.l2.advance_to(1200)
    return True


def _retry(one: Up, request: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deployments.cli", "retry", str(request), "--name", NAMES[0]]
    return subprocess.run(
        command, cwd=ROOT, env=one.environment, capture_output=True, text=True, timeout=60, check=False
    )


async def _judged(devnet: Devnet, ledger: Ledger) -> None:
    arguments: dict[str, Any] = {"oracle": devnet.oracle_address, "proposer": devnet.proposer_address}
    report = await check(
        l1_rpc=devnet.l1_rpc,
        output_root=devnet.l2.output_root,
        log=devnet.prover.log.events,
        ledger_url=ledger.url,
        **arguments,
    )
    assert report.violations == []
    assert report.reverted_transactions == 0
