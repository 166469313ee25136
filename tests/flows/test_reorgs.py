"""L1 reorgs at every point of an aggregation's life, a head that others move, and a crash between chain and ledger."""

from collections.abc import Awaitable, Callable

from flows.context import Proposer
from flows.transactions import tend
from infra.devnet import Devnet
from proposer.l1_transactions import Purpose, TxStatus
from proposer.requests import Failure, Kind, ProofRequest, Status
from tests.devnets import StartDevnet
from tests.flows.conftest import MakeProposer, answered, cycle, due_now, every_request, until


def settled(devnet: Devnet, block: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await devnet.latest_block_number() >= block

    return look


def posts(devnet: Devnet, kind: str) -> list[tuple[int, int]]:
    """Blocks of every request that reached the server."""
    return [(event["start"], event["end"]) for event in devnet.prover.log.of("post") if event["kind"] == kind]


async def aggregations(proposer: Proposer) -> list[ProofRequest]:
    return [r for r in await every_request(proposer) if r.kind is Kind.AGG]


async def proven_aggregation(proposer: Proposer) -> ProofRequest:
    """Go on until an aggregation is proven and not yet proposed."""
    found: list[ProofRequest] = []

    async def look() -> bool:
        found[:] = [r for r in await aggregations(proposer) if r.status is Status.COMPLETE]
        return bool(found)

    await until(proposer, look)
    return found[0]


async def reverted(devnet: Devnet) -> int:
    """Count the proposer's transactions that were mined and reverted."""
    count = 0
    for number in range(await devnet.l1.block_number() + 1):
        block = await devnet.l1.block(number, full=True)
        assert block is not None
        for tx in block["transactions"]:
            if tx["from"].lower() == devnet.proposer_address.lower():
                receipt = await devnet.l1.call("eth_getTransactionReceipt", tx["hash"])
                count += receipt["status"] != "0x1"
    return count


async def test_a_checkpoint_lost_in_a_reorg_is_made_again_and_its_aggregation_used(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """Only the transaction is gone: the same bytes are mined again, and no proof is asked for a second time."""
    proposer = await make_proposer(devnet)
    ready = await proven_aggregation(proposer)
    (checkpoint,) = await proposer.ledger.transactions(unsettled=False)
    assert checkpoint.block is not None
    assert ready.checkpoint is not None
    await devnet.anvil.set_block_time(0)
    await devnet.anvil.reorg(await devnet.l1.block_number() - checkpoint.block + 2)  # one may be on its way
    assert await proposer.oracle.historic_hash(proposer.l1, ready.checkpoint.number) is None
    await devnet.anvil.set_block_time(1)
    await until(proposer, settled(devnet, 1100))
    assert len(posts(devnet, "aggregation")) == 1
    again = (await proposer.ledger.transactions(unsettled=False))[0]
    assert (again.nonce, again.newest.hash) == (checkpoint.nonce, checkpoint.newest.hash)
    assert await reverted(devnet) == 0


async def test_an_aggregation_whose_anchor_was_reorganised_is_built_anew_from_the_same_ranges(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """The L1 block itself is gone: nothing is stuck, nothing reverts, and no range is proven again."""
    devnet = await start_devnet()
    proposer = await make_proposer(devnet)

    async def ranges_are_proven() -> bool:
        return len([r for r in await every_request(proposer) if r.status is Status.COMPLETE]) == 2

    await until(proposer, ranges_are_proven)
    await devnet.anvil.mine(10)  # later than what the range proofs are bound to
    ready = await proven_aggregation(proposer)
    assert ready.checkpoint is not None
    await devnet.anvil.set_block_time(0)
    await devnet.anvil.reorg(await devnet.l1.block_number() - ready.checkpoint.number + 2)  # one may be on its way
    await devnet.anvil.set_block_time(1)
    await until(proposer, settled(devnet, 1100))
    first, *others = await aggregations(proposer)
    assert (first.id, first.status, first.failure) == (ready.id, Status.CANCELLED, Failure.SUPERSEDED)
    assert first.failure_text is not None
    assert "L1 was reorganised" in first.failure_text
    assert others
    assert len(posts(devnet, "range")) == 2
    assert await reverted(devnet) == 0


async def test_only_a_range_bound_to_a_block_that_is_gone_is_proven_again(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """The program refuses the aggregation, with a newer checkpoint too; the range that is to blame is found."""
    devnet = await start_devnet()
    proposer = await make_proposer(devnet, max_witness_gen=1, max_proof_requests=1)
    await cycle(proposer)
    await answered(proposer)
    await devnet.anvil.mine(20)
    await devnet.anvil.set_block_time(0)  # the second is bound to the newest of them
    await due_now(proposer)

    async def ranges_are_proven() -> bool:
        return len([r for r in await every_request(proposer) if r.status is Status.COMPLETE]) == 2

    await until(proposer, ranges_are_proven)
    await devnet.anvil.reorg(10)
    await devnet.anvil.set_block_time(1)
    await until(proposer, settled(devnet, 1100))
    assert sorted(posts(devnet, "range")) == [(1000, 1050), (1050, 1100), (1050, 1100)]
    rows = await every_request(proposer)
    assert [r.range.start for r in rows if r.failure is Failure.NOT_AGGREGATABLE] == [1050]
    refused = [r for r in rows if r.failure is Failure.REFUSED_IN_SIMULATION]
    assert len(refused) == 2
    assert len({r.checkpoint for r in refused}) == 2
    assert len(devnet.prover.log.of("paid")) == 4, "two ranges, one of them again, and one aggregation"


async def test_a_proposal_lost_in_a_reorg_is_mined_again_as_it_was(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """The head goes back and returns: the same transaction, no second one, no second proof."""
    proposer = await make_proposer(devnet)
    await until(proposer, settled(devnet, 1100))
    await tend(proposer)
    await cycle(proposer)
    proposal = (await proposer.ledger.transactions(unsettled=False))[-1]
    assert proposal.block is not None
    await devnet.anvil.set_block_time(0)
    await devnet.anvil.reorg(await devnet.l1.block_number() - proposal.block + 2)  # one may be on its way
    assert await devnet.latest_block_number() == 1000
    await devnet.anvil.set_block_time(1)
    await until(proposer, settled(devnet, 1100))
    await cycle(proposer)
    journal = await proposer.ledger.transactions(unsettled=False)
    assert [t.nonce for t in journal] == [0, 1]
    assert journal[-1].mined == proposal.mined
    assert {r.status for r in await every_request(proposer)} == {Status.RELAYED}
    assert len(devnet.prover.log.of("paid")) == 3
    assert await reverted(devnet) == 0


async def test_a_transaction_mined_while_the_process_was_dead_is_recognised(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """Killed between the broadcast and the note of its receipt: in one cycle the request is RELAYED, with the hash."""
    proposer = await make_proposer(devnet)
    ready = await proven_aggregation(proposer)
    await cycle(proposer)
    (pending,) = [t for t in await proposer.ledger.transactions(unsettled=True) if t.may_propose]
    successor = await make_proposer(devnet)
    await devnet.anvil.mine(2)
    assert await devnet.latest_block_number() == 1100
    await tend(successor)
    await cycle(successor)
    assert (await successor.ledger.request(ready.id)).status is Status.RELAYED
    said = [event.why for event in await successor.ledger.events(ready.id) if event.to is Status.RELAYED]
    assert said[-1].endswith(f"by 0x{pending.newest.hash.hex()}")
    assert len([t for t in await successor.ledger.transactions(unsettled=False) if t.may_propose]) == 1


async def test_outputs_that_were_deleted_are_proposed_again_from_the_same_proofs(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """The challenger rewinds the contract: what is proven is used again, and nothing is asked for."""
    proposer = await make_proposer(devnet)
    await until(proposer, settled(devnet, 1100))
    devnet.l2.advance_to(1200)
    await until(proposer, settled(devnet, 1200))
    paid = len(devnet.prover.log.of("paid"))
    await devnet.delete_outputs(2, mine=True)
    assert await devnet.latest_block_number() == 1100
    await until(proposer, settled(devnet, 1200))
    assert len(devnet.prover.log.of("paid")) == paid
    assert await reverted(devnet) == 0


async def test_a_head_that_another_moves_into_a_range_is_bridged(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """What begins after the new head is used; a bridge is proven; the pending proposal never reverts."""
    devnet = await start_devnet(submission_interval=70, l2_initial_finalized=1150)
    proposer = await make_proposer(devnet)
    ready = await proven_aggregation(proposer)
    await devnet.competing_proposal(1070, mine=True)
    await until(proposer, settled(devnet, 1150))
    assert sorted(posts(devnet, "range")) == [(1000, 1050), (1050, 1100), (1070, 1100), (1100, 1150)]
    assert (await proposer.ledger.request(ready.id)).status is Status.CANCELLED
    assert await reverted(devnet) == 0
    assert all(t.status is not TxStatus.REVERTED for t in await proposer.ledger.transactions(unsettled=False))
    assert [t.action.purpose for t in await proposer.ledger.transactions(unsettled=False)][-1] is Purpose.PROPOSE
