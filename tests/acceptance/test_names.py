"""Two rollups by name on one Prefect server and one L1, one of them with a remote signer: neither touches the other."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest_asyncio
from prefect.client.orchestration import PrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.apply import apply
from deployments.environment import read_environment
from deployments.registry import Holding, register, release
from infra.devnet import Devnet, check
from infra.devnet.anvil import account_key
from infra.devnet.signer import SignerStandIn
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import ROOT, Hold, Ledger, Prefect, Row, Up, eventually, settled
from tests.acceptance.prefect_servers import SessionServer
from tests.devnets import StartDevnet

CHAIN = 31337
ONE, TWO, THREE = (account_key(number)[0] for number in (5, 6, 7))
KEY = account_key(5)[1]
CONTRACT, OTHER, NEW = ("0x" + digit * 40 for digit in "123")
SIGNERS = {"op-succinct-local-signer", "op-succinct-web3signer"}
NAMES = ("request-a", "op-b")
"""The first looks like the tag of a request."""
OWN = {"WITNESS_GEN_TIMEOUT": "60s", "POLL_INTERVAL": "10s"}


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
        await settled(devnet, 1100, process)
    for ledger in ledgers:
        await prefect.equal(ledger)
    await _each_has_its_own(prefect, ledgers)
    await _others_are_refused(up, first, second, one, empty_database_url)
    await _killed_or_cancelled_alone(prefect, (first, second), (one, other), ledgers)

    for devnet, process in ((first, one), (second, other)):
        await settled(devnet, 1200, process)
    for devnet, ledger in zip((first, second), ledgers, strict=True):
        await _judged(devnet, ledger)
    assert {sent["from"] for sent in signer.signed} == {second.proposer_address}


async def _each_has_its_own(prefect: Prefect, ledgers: list[Ledger]) -> None:
    """In Prefect: deployments, work pool, blocks, runs, and the cycles that planned them."""
    deployments = await prefect.all("/deployments/filter")
    flows = {flow["id"]: flow["name"] for flow in await prefect.all("/flows/filter")}
    names = {d["id"]: f"{flows[d['flow_id']]}/{d['name']}" for d in deployments}
    assert sorted(names.values()) == sorted(f"{flow}/{name}" for flow in ("propose-cycle", "prove") for name in NAMES)
    assert {d["name"]: d["work_pool_name"] for d in deployments} == dict(zip(NAMES, NAMES, strict=True))
    documents = await prefect.all("/block_documents/filter")
    slugs = {name: {d["block_type"]["slug"] for d in documents if d["name"] == name} for name in NAMES}
    assert slugs[NAMES[0]] ^ slugs[NAMES[1]] == {"op-succinct-local-signer", "op-succinct-web3signer"}
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


async def _others_are_refused(up: StartUp, first: Devnet, second: Devnet, one: Up, empty_database_url: str) -> None:
    """A third name with the first one's account and the second one's contract, and one on the first one's ledger."""
    await second.owner_call("addProposer", first.proposer_address)
    own = {"PROPOSER_NAME": "op-c", "DATABASE_URL": empty_database_url}
    third = up(second, "op-c", **own, PRIVATE_KEY=first.proposer_key)
    applying = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deployments.cli", "apply", "--name", "op-d"),
        cwd=ROOT,
        env=one.environment,
        stderr=subprocess.PIPE,
    )
    _, said = await applying.communicate()
    assert (applying.returncode, await third.ended()) == (2, 2)
    account, chain = first.proposer_address, f"on chain {CHAIN}"
    for name, text, owner in (("op-c", third.output, "op-b"), ("op-d", said.decode(), NAMES[0])):
        assert f"PRIVATE_KEY: account {account} {chain} signs for rollup '{NAMES[0]}' of this Prefect server" in text
        assert "give this one an account of its own" in text
        assert re.search(rf"L2OO_ADDRESS: contract 0x\w+ {chain} is proposed to by rollup '{owner}'", text), text
        assert f"and this is '{name}'" in text
        assert f"prefect variable unset op-succinct-signer-{CHAIN}-{account.lower()}" in text


async def _killed_or_cancelled_alone(
    prefect: Prefect, devnets: tuple[Devnet, Devnet], processes: tuple[Up, Up], ledgers: list[Ledger]
) -> None:
    """The first is killed in a cycle with a proof under way, the second starts anew beside it and settles."""
    (first, second), (one, other) = devnets, processes
    held = Hold(first.traps, "prover.range.arrived")
    first.l2.advance_to(1150)
    await held.reached()
    (open_one,) = await ledgers[0].having("status = 'WITNESSGEN' AND flow_run_id IS NOT NULL", alive=one)
    first.op_node.faults.hang = True
    hangs_since = datetime.now(UTC)

    async def cycle_runs() -> list[Row]:
        return [
            run
            for run in await prefect.cycles()
            if run["state"]["type"] == "RUNNING"
            and f"rollup-{NAMES[0]}" in run["tags"]
            and datetime.fromisoformat(run["start_time"]) > hangs_since  # an earlier one may be past the node
        ]

    cycles = await eventually("a cycle of the first is under way", cycle_runs, alive=one)
    one.kill()
    assert await other.terminate() == 0
    other.start()
    second.l2.advance_to(1200)
    await settled(second, 1200, other)
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
    command = (sys.executable, "-m", "deployments.cli", "retry", str(open_one["id"]), "--name", NAMES[0])
    taken = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=one.environment)
    assert await taken.wait() == 0
    first.l2.advance_to(1200)


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


def holding(name: str, account: str | None = ONE, contract: str = CONTRACT) -> Holding:
    """What a rollup of this name has."""
    return Holding(name=name, l1_chain_id=1, contract=contract, account=account, setting="SIGNER_ADDRESS")


async def test_an_account_is_one_rollups_until_it_uses_another(prefect: Prefect, prefect_server: SessionServer) -> None:
    """Of two that come at once one has it; a refusal takes nothing; what is given back is free for others."""
    async with PrefectClient(prefect_server.api_url) as client:
        own = dict(zip(NAMES, (CONTRACT, OTHER), strict=True))
        both = await asyncio.gather(*(register(client, holding(name, ONE, own[name])) for name in NAMES))
        (winner,), (refusal,) = [[n for n, said in zip(NAMES, both, strict=True) if not said], [s for s in both if s]]
        loser = NAMES[1 - NAMES.index(winner)]
        assert len(refusal) == 1
        assert f"account {ONE} on chain 1 signs for rollup {winner!r}" in refusal[0]
        assert await register(client, holding("op-c", TWO, own[loser])) == [], "the refused has taken nothing"
        assert await register(client, holding(winner, ONE, own[winner])) == []
        assert await register(client, holding(winner, None, own[winner])) == [], (
            "without a signer there is none to share"
        )

        rotated = holding(winner, THREE, own[winner])
        assert await register(client, rotated) == []
        assert await release(client, rotated, [ONE]) == [], "kept while something of it is unmined"
        assert await release(client, rotated, []) == [f"op-succinct-signer-1-{ONE.lower()}"]
        assert await register(client, holding("op-d", ONE, NEW)) == []
        names = {variable["name"]: variable["value"] for variable in await prefect.all("/variables/filter")}
        assert names[f"op-succinct-signer-1-{THREE.lower()}"] == winner
        assert names[f"op-succinct-signer-1-{ONE.lower()}"] == "op-d"


async def test_a_key_that_is_not_used_any_more_is_not_kept_in_prefect(
    prefect: Prefect, prefect_server: SessionServer
) -> None:
    """`apply` with a remote signer deletes the block of the key, of this rollup only."""
    values = {
        "PREFECT_API_URL": prefect_server.api_url,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "L1_RPC": "http://127.0.0.1:1",
        "L2_NODE_RPC": "http://127.0.0.1:1",
        "L2OO_ADDRESS": CONTRACT,
    }
    remote = {"SIGNER_URL": "http://127.0.0.1:1", "SIGNER_ADDRESS": ONE}
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        for name, signer in (("op-a", {"PRIVATE_KEY": KEY}), ("op-b", {"PRIVATE_KEY": KEY}), ("op-a", remote)):
            environment = read_environment({**values, **signer, "PROPOSER_NAME": name})
            await apply(environment, values["DATABASE_URL"])
    documents = await prefect.all("/block_documents/filter")
    assert {(d["block_type"]["slug"], d["name"]) for d in documents if d["block_type"]["slug"] in SIGNERS} == {
        ("op-succinct-web3signer", "op-a"),
        ("op-succinct-local-signer", "op-b"),
    }
