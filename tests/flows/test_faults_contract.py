"""Contract, node or L1 change under the proposer: it waits with a reason, deletes nothing, and resumes by itself."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from blocks.l1 import L1Chain
from blocks.op_node import OpNode
from blocks.prover import SuccinctServer
from flows.context import Proposer
from flows.report import CycleReport
from flows.transactions import tend
from infra.devnet import Devnet, Fault, FaultPlan
from infra.devnet.rpc import calldata
from proposer.errors import Reverted
from proposer.l1_transactions import Purpose, TxStatus
from proposer.reasons import Code
from proposer.requests import COVERAGE, Failure, Kind, ProofRequest, Status
from proposer.units import GWEI
from tests.flows.conftest import MakeProposer, answered, cycle, due_now, every_request, looked, until, with_status

COMMITMENTS = {
    "updateAggregationVkey": "aggregation_vkey",
    "updateRangeVkeyCommitment": "range_vkey",
    "updateRollupConfigHash": "rollup_config_hash",
}


def _codes(report: CycleReport) -> set[Code]:
    return {reason.code for reason in report.reasons}


def _asked(devnet: Devnet, kind: str = "range") -> int:
    return sum(event["kind"] == kind for event in devnet.prover.log.of("post"))


async def _aggregations(proposer: Proposer) -> list[ProofRequest]:
    return [r for r in await every_request(proposer) if r.kind is Kind.AGG]


async def _proposals(proposer: Proposer) -> list[TxStatus]:
    return [
        t.status for t in await proposer.ledger.transactions(unsettled=False) if t.action.purpose is Purpose.PROPOSE
    ]


async def _until_proven(proposer: Proposer) -> None:
    """Go on until an aggregation is complete and only its proposal is left to do."""

    async def proven() -> bool:
        return any(r.status is Status.COMPLETE for r in await _aggregations(proposer))

    await until(proposer, proven, seconds=60)
    assert await _proposals(proposer) == []


async def _until_settled(devnet: Devnet, proposer: Proposer, block: int = 1100) -> None:
    async def settled() -> bool:
        return await devnet.latest_block_number() == block

    await until(proposer, settled, seconds=60)


async def _collected(proposer: Proposer) -> None:
    """Look until everything that the server was asked for is proven."""
    await answered(proposer)
    async with asyncio.timeout(60):
        while await with_status(proposer, Status.PROVING):
            await due_now(proposer)
            await looked(proposer)


@pytest.mark.parametrize("function", COMMITMENTS)
async def test_changed_commitments_pause_and_their_return_resumes(
    devnet: Devnet, make_proposer: MakeProposer, function: str
) -> None:
    """F19: nothing new is asked, what is under way is collected, nothing is deleted; restored, it goes on by itself."""
    proposer = await make_proposer(devnet, max_witness_gen=1)
    await cycle(proposer)
    await answered(proposer)
    await devnet.owner_call(function, devnet.foreign_hash(), mine=True)
    for _ in range(3):
        report = await cycle(proposer)
        assert Code.CONFIG_MISMATCH in _codes(report)
        assert report.failed == {}
    await _collected(proposer)
    assert [r.status for r in await every_request(proposer)] == [Status.COMPLETE, Status.UNREQ]
    assert _asked(devnet) == 1
    await devnet.owner_call(function, getattr(devnet.commitments, COMMITMENTS[function]), mine=True)
    await _until_settled(devnet, proposer)
    await cycle(proposer)
    assert [(r.status, r.attempt) for r in await every_request(proposer)] == [(Status.RELAYED, 1)] * 3
    assert (_asked(devnet), _asked(devnet, "aggregation")) == (2, 1)


async def test_a_finished_aggregation_outlives_a_pause(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """F19: under another vkey of the contract the proof is not proposed but kept, and proposed once that is undone."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    await devnet.owner_call("updateAggregationVkey", devnet.foreign_hash(), mine=True)
    for _ in range(3):
        assert Code.CONFIG_MISMATCH in _codes(await cycle(proposer))
    assert await _proposals(proposer) == []
    assert [r.status for r in await _aggregations(proposer)] == [Status.COMPLETE]
    await devnet.owner_call("updateAggregationVkey", devnet.commitments.aggregation_vkey, mine=True)
    await _until_settled(devnet, proposer)
    assert _asked(devnet, "aggregation") == 1


@pytest.mark.parametrize(
    ("function", "ranges_asked"), [("updateAggregationVkey", 2), ("updateRangeVkeyCommitment", 4)], ids=str
)
async def test_an_upgrade_proves_anew_only_what_is_bound_to_the_old_program(
    devnet: Devnet, make_proposer: MakeProposer, function: str, ranges_asked: int
) -> None:
    """S15: contract and server change: the old aggregation is replaced, range proofs only where their vkey changed."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    await devnet.owner_call(function, devnet.foreign_hash(), mine=True)
    changed: dict[str, Any] = {COMMITMENTS[function]: devnet.foreign_hash()}
    devnet.prover.commitments = replace(devnet.commitments, **changed)
    await _until_settled(devnet, proposer)
    old, new = await _aggregations(proposer)
    assert old.status is Status.CANCELLED
    assert new.commitments != old.commitments
    assert len(await _proposals(proposer)) == 1
    assert (_asked(devnet), _asked(devnet, "aggregation")) == (ranges_asked, 2)


async def test_optimistic_mode_pauses_and_its_end_resumes(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """F22, S32: in optimistic mode nothing is asked or proposed, with a reason; afterwards everything goes on."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    await devnet.owner_call("enableOptimisticMode", devnet.config.finalization_period_s, mine=True)
    devnet.l2.advance_to(1200)
    for _ in range(3):
        report = await cycle(proposer)
        assert Code.OPTIMISTIC_MODE in _codes(report)
        assert report.failed == {}
    assert await _proposals(proposer) == []
    assert _asked(devnet) == 2
    await devnet.owner_call("disableOptimisticMode", devnet.config.finalization_period_s, mine=True)
    await _until_settled(devnet, proposer, 1200)


@pytest.mark.parametrize(("block", "code"), [(1000, Code.NODE_DISAGREES), (1100, Code.ROOT_CHANGED)], ids=str)
async def test_a_node_with_another_root_stops_the_proposal(
    devnet: Devnet, make_proposer: MakeProposer, block: int, code: Code
) -> None:
    """F26, S30: at the contract head or at the aggregation's end: no transaction; it goes on when the node agrees."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    devnet.op_node.faults.wrong_roots = {block}
    for _ in range(3):
        report = await cycle(proposer)
        assert code in _codes(report)
        assert report.failed == {}
    assert await _proposals(proposer) == []
    devnet.op_node.faults.wrong_roots = set()
    await _until_settled(devnet, proposer)
    assert len(await _proposals(proposer)) == 1


async def test_a_node_that_disagrees_with_the_contract_gets_nothing_asked(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """F26: a node on a fork, or of another rollup: not one proof is paid for."""
    devnet.op_node.faults.wrong_roots = {1000}
    proposer = await make_proposer(devnet)
    for _ in range(3):
        assert Code.NODE_DISAGREES in _codes(await cycle(proposer))
    assert _asked(devnet) == 0
    devnet.op_node.faults.wrong_roots = set()
    await cycle(proposer)
    await answered(proposer)
    assert _asked(devnet) == 2


async def test_a_root_that_was_wrong_when_it_was_planned_is_never_sent(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """F26, S30: node and plan agree on a wrong root; the simulation refuses it, and no gas is spent."""
    devnet.op_node.faults.wrong_roots = {1100}
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    report = await cycle(proposer)
    assert Code.PROPOSAL_REVERTS in _codes(report)
    assert await _proposals(proposer) == []
    assert await devnet.latest_block_number() == 1000


async def test_a_raised_interval_replaces_a_finished_aggregation(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """F30, S05: it can never be proposed: it is cancelled with a reason, its proofs are used in the longer one."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    await devnet.owner_call("updateSubmissionInterval", 200, mine=True)
    devnet.l2.advance_to(1160)
    for _ in range(3):
        report = await cycle(proposer)
        assert report.failed == {}
        assert Code.WAITING_FOR_FINALITY in _codes(report)
    (old,) = await _aggregations(proposer)
    assert old.status is Status.CANCELLED
    assert "the submission interval was raised" in (old.failure_text or "")
    assert await _proposals(proposer) == []
    devnet.l2.advance_to(1200)
    await _until_settled(devnet, proposer, 1200)
    assert len(await _proposals(proposer)) == 1
    assert (_asked(devnet), _asked(devnet, "aggregation")) == (4, 2)


async def test_an_aggregation_is_anchored_to_the_hash_that_the_contract_has(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """S06, S31: a hash that is not the contract's (L1 was reorganised) is forgotten; the server never hears of it."""
    proposer = await make_proposer(devnet)

    async def planned() -> bool:
        return bool(await _aggregations(proposer))

    await until(proposer, planned, seconds=60)
    foreign = devnet.foreign_hash()
    async with proposer.ledger.connect() as connection:
        changed = await connection.execute(
            text("UPDATE proof_requests SET checkpoint_number = 5, checkpoint_hash = :foreign WHERE status = 'UNREQ'"),
            {"foreign": foreign},
        )
        await connection.commit()
    assert changed.rowcount == 1
    await _until_settled(devnet, proposer)
    (aggregation,) = await _aggregations(proposer)
    assert aggregation.checkpoint is not None
    in_contract = await devnet.read("historicBlockHashes(uint256)", aggregation.checkpoint.number)
    assert aggregation.checkpoint.hash == in_contract
    heads = {event["head"] for event in devnet.prover.log.of("post") if event["kind"] == "aggregation"}
    assert heads == {"0x" + in_contract.hex()}


async def test_a_proposal_that_reverts_in_its_block_settles_nothing(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """S29: simulated fine, mined and reverted: recorded as that, the proof is kept, and proposed when it can be."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    await devnet.anvil.set_block_time(0)
    await cycle(proposer)
    assert await _proposals(proposer) == [TxStatus.PENDING]
    await devnet.l1.call(
        "eth_sendTransaction",
        {
            "from": devnet.owner,
            "to": devnet.oracle_address,
            "data": calldata("removeProposer(address)", devnet.proposer_address),
            "maxPriorityFeePerGas": hex(500 * GWEI),
            "maxFeePerGas": hex(1000 * GWEI),
        },
    )
    await devnet.anvil.mine(1)
    await tend(proposer)
    assert await _proposals(proposer) == [TxStatus.REVERTED]
    assert [reason.code for reason in proposer.record.incidents] == [Code.TRANSACTION_REVERTED]
    report = await cycle(proposer)
    assert Code.NOT_APPROVED in _codes(report)
    assert [r.status for r in await _aggregations(proposer)] == [Status.COMPLETE]
    assert not any(r.status is Status.RELAYED for r in await every_request(proposer))
    await devnet.owner_call("addProposer", devnet.proposer_address, mine=True)
    await devnet.anvil.set_block_time(1)
    await _until_settled(devnet, proposer)
    assert _asked(devnet, "aggregation") == 1


async def test_a_proposal_that_is_not_mined_holds_up_nothing_else(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """S17: L1 makes no block: new ranges are planned, asked for and collected while the proposal waits."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    await devnet.anvil.set_block_time(0)
    await cycle(proposer)
    assert await _proposals(proposer) == [TxStatus.PENDING]
    devnet.l2.advance_to(1200)
    async with asyncio.timeout(60):
        report = await cycle(proposer)
        await _collected(proposer)
    assert report.failed == {}
    assert Code.PROPOSAL_PENDING in _codes(report)
    ahead = [r for r in await every_request(proposer) if r.kind is Kind.RANGE and r.range.start >= 1100]
    assert [r.status for r in ahead] == [Status.COMPLETE, Status.COMPLETE]
    assert await _proposals(proposer) == [TxStatus.PENDING]


@pytest.mark.parametrize("what", ["node", "look", "request"])
async def test_a_finished_aggregation_is_proposed_whatever_hangs(
    devnet: Devnet, make_proposer: MakeProposer, what: str
) -> None:
    """S04, S38: the node (its root is known), a look or a request hangs: the proposal goes out all the same."""
    proposer = await make_proposer(devnet, witness_gen_timeout=20)
    if what == "look":
        devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="late", block=1110, seconds=600),)))
        devnet.l2.advance_to(1150)
    await _until_proven(proposer)
    if what == "look":
        devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="slow_status", block=1110, seconds=60),)))
    if what == "request":
        devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="hang", block=1110),)))
        devnet.l2.advance_to(1150)
    devnet.op_node.faults.hang = what == "node"
    await due_now(proposer)
    # impatient with what hangs alone: the others must answer
    async with aclosing(OpNode(urls=SecretStr(devnet.node_rpc), timeout_seconds=1.5)) as node:
        if what == "node":
            proposer.node = node
        async with asyncio.timeout(60):
            report = await cycle(proposer)
    assert len(await _proposals(proposer)) == 1
    assert set(report.failed) <= {"ProcessProvingRequests"}
    hanging = [r.status for r in await every_request(proposer) if r.range.start == 1100]
    assert hanging == {"node": [], "look": [Status.PROVING], "request": [Status.WITNESSGEN]}[what]


async def test_an_l1_that_hangs_stops_neither_looks_nor_the_cycle(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """S38: with a proposal pending, too: proofs are collected meanwhile, and all is settled when L1 answers again."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    await devnet.anvil.set_block_time(0)
    devnet.l2.advance_to(1200)
    await cycle(proposer)
    await answered(proposer)
    assert await _proposals(proposer) == [TxStatus.PENDING]
    async with (
        aclosing(L1Chain(urls=SecretStr(devnet.l1_rpc), timeout_seconds=1.5)) as l1,
        # they read L1 themselves, and hang with it; the server still tells of its proofs
        aclosing(OpNode(urls=SecretStr(devnet.node_rpc), timeout_seconds=1.5)) as node,
        aclosing(SuccinctServer(url=SecretStr(devnet.prover_url), timeout_seconds=5)) as server,
    ):
        impatient = replace(proposer, l1=l1, node=node, server=server)
        devnet.anvil.freeze()
        try:
            await asyncio.sleep(0.3)
            await due_now(proposer)
            async with asyncio.timeout(60):
                report = await cycle(impatient)
                await asyncio.gather(*impatient.rounds)
        finally:
            devnet.anvil.thaw()
    assert Code.L1_DOWN in _codes(report)
    assert {r.status for r in await every_request(proposer)} <= COVERAGE
    await devnet.anvil.set_block_time(1)
    await _until_settled(devnet, proposer, 1200)


async def test_a_node_that_lags_condemns_no_proof(
    devnet: Devnet, make_proposer: MakeProposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a load balancer the estimate may be of an older state, where no proof from this head is right."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)

    async def lags(_: L1Chain, tx: dict[str, Any]) -> int:
        raise Reverted("InvalidProof")

    with monkeypatch.context() as patch:
        patch.setattr(L1Chain, "estimate_gas", lags)
        for _ in range(3):
            assert Code.PROPOSAL_REVERTS in _codes(await cycle(proposer))
    assert [r.status for r in await _aggregations(proposer)] == [Status.COMPLETE]
    await _until_settled(devnet, proposer, 1100)
    assert _asked(devnet, "aggregation") == 1


async def test_a_proof_that_the_contract_refuses_twice_is_made_anew(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """It refuses in the block that it was read at too; nothing is sent for the bad one."""
    proposer = await make_proposer(devnet)
    await _until_proven(proposer)
    async with proposer.ledger.connect() as connection:
        await connection.execute(
            text("UPDATE proofs SET proof = '\\x0de7e701' || sha256('another') WHERE request_id = 3")
        )
        await connection.commit()
    for refused in (1, 2):
        assert Code.PROPOSAL_REVERTS in _codes(await cycle(proposer)), refused
    bad = (await _aggregations(proposer))[0]
    assert (bad.status, bad.failure) == (Status.FAILED, Failure.REFUSED_BY_CONTRACT)
    assert await _proposals(proposer) == []
    await _until_settled(devnet, proposer, 1100)
    assert _asked(devnet, "aggregation") == 2
