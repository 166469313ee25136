"""A dry run shows everything a cycle would do, in full, and changes nothing anywhere."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from blocks.ledger import Ledger
from flows.context import Proposer
from flows.report import CycleReport
from flows.stages import proving
from flows.transactions import tend
from infra.devnet import Devnet
from proposer.l1_transactions import Purpose, TxStatus
from proposer.reasons import Code
from proposer.requests import Kind, Status
from proposer.would import Call, Post, shown
from tests.everything import everything
from tests.flows.conftest import MakeProposer, answered, cycle, due_now, every_request, until, with_status


@pytest_asyncio.fixture
async def read_only(database_url: str) -> AsyncIterator[Ledger]:
    """The ledger, through a door that PostgreSQL itself lets no write through."""
    opened = Ledger(database_url, read_only=True)
    yield opened
    await opened.close()


async def _dry(proposer: Proposer, devnet: Devnet, url: str) -> CycleReport:
    """Run a dry cycle; the ledger with its sequences, the server's log and the chain's nonces are as before."""
    before = everything(url), _asked(devnet), await _nonce(devnet)
    report = await cycle(proposer, dry_run=True)
    assert (everything(url), _asked(devnet), await _nonce(devnet)) == before
    assert report.failed == {}
    return report


def _asked(devnet: Devnet) -> list[object]:
    """What the server was asked for; what the network does by itself goes on meanwhile."""
    return [event for event in devnet.prover.log.events if event["event"] in {"post", "paid", "answered"}]


async def _nonce(devnet: Devnet) -> str:
    found: str = await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "pending")
    return found


def _without_key(proposer: Proposer, ledger: Ledger, account: str | None) -> Proposer:
    """Return the proposer as it is in a dry run: no key, no leadership, a ledger that cannot be written."""
    return replace(proposer, ledger=ledger, signer=None, watched=account, epoch=0, still_leads=lambda: False)


async def test_each_step_to_a_settled_output_is_shown_before_it_is_done(
    devnet: Devnet, make_proposer: MakeProposer, read_only: Ledger, database_url: str
) -> None:
    """Ranges, POSTs, checkpoint and proposal: what is shown without a key is byte for byte what is then done."""
    proposer = await make_proposer(devnet)
    dry = _without_key(proposer, read_only, devnet.proposer_address)

    first = await _dry(dry, devnet, database_url)
    assert first.did[:2] == ["would plan 1000→1050 (attempt 1)", "would plan 1050→1100 (attempt 1)"]
    assert first.would == [
        Post(
            request=f"range {start}→{end} (new, attempt 1)",
            url=f"{devnet.prover_url}/request_span_proof",
            body={"start": start, "end": end},
        )
        for start, end in ((1000, 1050), (1050, 1100))
    ]
    assert first.headline == "would plan 2 · would request 2"

    await cycle(proposer)
    await answered(proposer)
    await due_now(proposer)
    looks = await _dry(dry, devnet, database_url)
    assert [sentence.rpartition(" range ")[0] for sentence in looks.did] == ["would ask for the status of"] * 2
    await _proven(proposer, devnet)

    planned = await _dry(dry, devnet, database_url)
    assert planned.did[0] == "would plan aggregation 1000→1100 of 2 proofs"
    (checkpoint,) = planned.would
    await _then_sent(proposer, devnet, checkpoint, Purpose.CHECKPOINT)

    async with asyncio.timeout(60):
        while await proposer.ledger.transactions(unsettled=True):
            await tend(proposer)
            await asyncio.sleep(0.1)
    (asked,) = (await _dry(dry, devnet, database_url)).would
    assert isinstance(asked, Post)
    assert asked.url == f"{devnet.prover_url}/request_agg_proof"
    proven = await with_status(proposer, Status.COMPLETE)
    assert asked.body["subproofs"] == [
        f"<request {r.id}: {r.proof_length} bytes, sha256 {r.proof_digest.hex()}>" for r in proven if r.proof_digest
    ]

    async def aggregation_is_proven() -> bool:
        return any(r.kind is Kind.AGG and r.status is Status.COMPLETE for r in await every_request(proposer))

    await until(proposer, aggregation_is_proven)
    last = await _dry(dry, devnet, database_url)
    (proposal,) = last.would
    await _then_sent(proposer, devnet, proposal, Purpose.PROPOSE)
    pending = await _dry(dry, devnet, database_url)
    assert [s for s in pending.did if "propose transaction" in s], pending.did


async def _proven(proposer: Proposer, devnet: Devnet) -> None:
    """Collect both range proofs, and do nothing else; L1 goes on, so that there is a block to anchor them to."""
    async with asyncio.timeout(60):
        while len(await with_status(proposer, Status.COMPLETE)) < 2:
            await due_now(proposer)
            await proving.look(proposer)
            await asyncio.sleep(0.05)
    await devnet.anvil.mine(3)


async def _then_sent(proposer: Proposer, devnet: Devnet, call: object, purpose: Purpose) -> None:
    """Run real cycles until this was sent: from the same account, with the same gas and calldata."""
    assert isinstance(call, Call)
    assert (call.purpose, call.sender, call.to) == (purpose, devnet.proposer_address, devnet.oracle_address)
    assert call.simulation == "passes"
    assert call.gas is not None and call.gas_limit is not None and call.most_wei is not None
    assert call.most_wei >= call.gas_limit > call.gas > 21_000
    assert call.stopped is not None and "no signer" in str(call.stopped)
    assert call.calldata.hex() in str(call)
    assert shown([call])[0]["calldata"] == "0x" + call.calldata.hex()

    async def sent() -> bool:
        return any(t.action.purpose is purpose for t in await proposer.ledger.transactions(unsettled=False))

    if not await sent():
        await until(proposer, sent)
    (tx,) = [t for t in await proposer.ledger.transactions(unsettled=False) if t.action.purpose is purpose]
    if purpose is Purpose.PROPOSE:  # a checkpoint may be of a newer block by now
        assert (tx.action.calldata, tx.action.to) == (call.calldata, call.to)
    assert tx.action.calldata[:4] == call.calldata[:4]


async def test_without_an_account_everything_but_the_simulation_is_shown(
    devnet: Devnet, make_proposer: MakeProposer, read_only: Ledger, database_url: str
) -> None:
    """Whether nobody may propose is not asked; the calldata is there, and what would make the simulation possible."""
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)
    await _proven(proposer, devnet)
    report = await _dry(_without_key(proposer, read_only, None), devnet, database_url)
    assert Code.NOT_APPROVED not in {reason.code for reason in report.reasons}
    (call,) = report.would
    assert isinstance(call, Call)
    assert (call.sender, call.gas, call.purpose) == (None, None, Purpose.CHECKPOINT)
    assert "set SIGNER_ADDRESS" in call.simulation


async def test_a_simulation_that_reverts_is_shown_with_its_name(
    devnet: Devnet, make_proposer: MakeProposer, read_only: Ledger, database_url: str
) -> None:
    """The proposal is not wished for any more: its calldata is shown beside the name of the revert."""
    proposer = await make_proposer(devnet)

    async def aggregation_is_proven() -> bool:
        return any(r.kind is Kind.AGG and r.status is Status.COMPLETE for r in await every_request(proposer))

    await until(proposer, aggregation_is_proven)
    await devnet.owner_call("updateVerifier", devnet.oracle_address)
    report = await _dry(_without_key(proposer, read_only, devnet.proposer_address), devnet, database_url)
    (call,) = report.would
    assert isinstance(call, Call)
    assert call.simulation.startswith("reverts with ")
    assert (call.gas, call.gas_limit, call.most_wei) == (None, None, None)
    assert all(t.status is not TxStatus.PENDING for t in await proposer.ledger.transactions(unsettled=False))


async def test_a_dry_cycle_is_no_cycle_of_the_process(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """It moves neither the clock of the schedule nor what is recorded for metrics and health."""
    proposer = await make_proposer(devnet)
    await cycle(proposer, dry_run=True)
    assert (proposer.last_cycle_at, proposer.record.succeeded, proposer.last_server) == (0.0, 0, None)
    await cycle(proposer)
    assert proposer.record.succeeded == 1
    assert proposer.last_cycle_at > 0


@pytest.mark.parametrize("account", [None, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"])
async def test_the_signer_comes_before_the_watched_account(
    devnet: Devnet, make_proposer: MakeProposer, account: str | None
) -> None:
    """The account is the signer's, else the one that is watched, else none."""
    proposer = await make_proposer(devnet)
    assert replace(proposer, watched=account).account == devnet.proposer_address
    assert replace(proposer, signer=None, watched=account).account == account
