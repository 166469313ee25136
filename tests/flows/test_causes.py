"""Every cause produced on purpose, on a real ledger and devnet: `explain` names exactly that and writes nothing."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from blocks.signer import LocalSigner
from flows import desk
from flows.context import Proposer
from flows.orders import obey
from flows.transactions import tend
from infra.devnet import Devnet, Fault, FaultPlan, ProverTiming
from infra.devnet.anvil import account_key
from proposer.errors import UnknownRequest
from proposer.explain import Explanation
from proposer.orders import OrderKind
from proposer.reasons import Code
from proposer.requests import Kind, ProofRequest, Status
from tests.devnets import StartDevnet
from tests.flows.conftest import MakeProposer, answered, cycle, every_request, until, with_status

SLOW = ProverTiming(0.01, 0.02, 600.0, 600.0)
TABLES = ("proof_requests", "request_events", "operator_orders", "l1_transactions", "l1_signed", "marks", "leadership")


async def explained(proposer: Proposer, *, request: int | None = None, block: int | None = None) -> Explanation:
    """Explain, and hold that nothing at all was written."""
    before = await _everything(proposer)
    found = await desk.explain(proposer, await desk.look(proposer), request=request, block=block)
    assert await _everything(proposer) == before
    assert all(reason.sentence for reason in found.chain)
    assert found.cause.remedy
    return found


async def _everything(proposer: Proposer) -> list[Any]:
    async with proposer.ledger.connect() as connection:
        return [(await connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))).all() for table in TABLES]


def codes(explanation: Explanation) -> list[Code]:
    return [reason.code for reason in explanation.chain]


async def sent(proposer: Proposer) -> list[ProofRequest]:
    """Plan and send the first requests, and wait for the server's answers."""
    await cycle(proposer)
    await answered(proposer)
    return await every_request(proposer)


async def aggregation(proposer: Proposer, *statuses: Status) -> ProofRequest:
    """Go on until an aggregation has one of these statuses."""
    found: list[ProofRequest] = []

    async def look() -> bool:
        found[:] = [r for r in await every_request(proposer) if r.kind is Kind.AGG and r.status in statuses]
        return bool(found)

    await until(proposer, look, seconds=60)
    return found[0]


def settled(devnet: Devnet, block: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await devnet.latest_block_number() >= block

    return look


async def stand_still(devnet: Devnet) -> None:
    """Let L1 mine nothing more, after a few blocks: what is bound to the newest one could not be checkpointed yet."""
    await devnet.anvil.mine(3)
    await devnet.anvil.set_automine(on=False)
    await devnet.anvil.set_block_time(0)


async def test_nothing_is_wrong_and_what_comes_next(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    fresh = await explained(proposer)
    assert codes(fresh) == [Code.NEXT_CYCLE]
    assert "range 1050→1100 is planned" in fresh.cause.sentence
    assert fresh.also == ()


async def test_nobody_leads(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Whatever else is wrong: without a leader nothing happens."""
    proposer = await make_proposer(devnet)
    await sent(proposer)
    await devnet.prover.stop()
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE leadership SET expires_at = now() - interval '1 minute'"))
        await connection.commit()
    found = await explained(proposer)
    assert found.cause.code is Code.NO_LEADER
    assert "test led until" in found.cause.sentence
    assert Code.SERVER_DOWN in [reason.code for reason in found.also]


async def test_a_block_that_is_not_finalized(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    found = await explained(proposer, block=1150)
    assert codes(found) == [Code.WAITING_FOR_FINALITY]
    assert "finalized up to block 1100" in found.cause.sentence


async def test_a_block_that_the_node_does_not_tell_of(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """The node is away, starting, or behind what it said before: each by its name."""
    proposer = await make_proposer(devnet)
    await sent(proposer)
    devnet.op_node.faults.finalized_lag = 30
    assert (await explained(proposer, block=1150)).cause.code is Code.NODE_BEHIND
    devnet.op_node.faults.starting = True
    assert (await explained(proposer, block=1150)).cause.code is Code.NODE_STARTING
    await devnet.op_node.stop()
    assert (await explained(proposer, block=1150)).cause.code is Code.NODE_DOWN


async def test_the_witness_is_being_made(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    devnet = await start_devnet(timing=ProverTiming(600.0, 600.0, 0.01, 0.02))
    proposer = await make_proposer(devnet, witness_gen_timeout=700)
    await cycle(proposer)
    found = await explained(proposer, block=1001)
    assert codes(found) == [Code.WAITING_FOR_PROOFS, Code.WITNESS_UNDER_WAY]
    assert found.cause.facts["request"] == 1


async def test_the_network_proves(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    devnet = await start_devnet(timing=SLOW)
    proposer = await make_proposer(devnet)
    first, _ = await sent(proposer)
    found = await explained(proposer, request=first.id)
    assert codes(found) == [Code.WAITING_FOR_PROOFS, Code.PROOF_UNDER_WAY]
    assert str((await proposer.ledger.request(first.id)).prover_id) in found.cause.sentence


async def test_a_request_whose_answer_was_lost_with_its_process(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """It may have been paid: it waits out the server's time."""
    devnet = await start_devnet(timing=ProverTiming(600.0, 600.0, 0.01, 0.02))
    proposer = await make_proposer(devnet, witness_gen_timeout=700)
    await cycle(proposer)
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE leadership SET epoch = epoch + 1"))
        await connection.commit()
    found = await explained(proposer, block=1050)
    assert codes(found) == [Code.WAITING_FOR_PROOFS, Code.BACKING_OFF]
    assert "may have been paid" in found.cause.sentence


async def test_a_range_backs_off_because_of_what_the_server_answered(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """The server's own words are in the sentence; the failed attempt itself leads to the same cause."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="post_500", block=1010),)))
    proposer = await make_proposer(devnet, retry_delay=60)
    await sent(proposer)
    (failed,) = await with_status(proposer, Status.FAILED)
    found = await explained(proposer, block=1010)
    assert codes(found) == [Code.WAITING_FOR_PROOFS, Code.BACKING_OFF]
    assert failed.failure_text
    assert failed.failure_text[:40] in found.cause.sentence
    attempt = await explained(proposer, request=failed.id)
    assert codes(attempt) == [Code.ATTEMPT_ENDED, Code.WAITING_FOR_PROOFS, Code.BACKING_OFF]
    assert "carried on by request 3" in attempt.chain[0].sentence


async def test_a_parked_range_holds_up_what_comes_after_it(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """Also for the block after it, whose own range is being proven."""
    faults = FaultPlan(rules=(Fault(kind="post_500", block=1010),))
    devnet = await start_devnet(timing=SLOW, faults=faults)
    proposer = await make_proposer(devnet, max_attempts=1)
    await sent(proposer)
    (parked,) = await with_status(proposer, Status.PARKED)
    for block in (1010, 1100):
        found = await explained(proposer, block=block)
        assert found.cause.code is Code.REQUEST_PARKED
        assert found.cause.facts["request"] == parked.id
        assert f"proposer retry {parked.id}" in found.cause.remedy


async def test_all_slots_are_taken(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    devnet = await start_devnet(timing=SLOW)
    proposer = await make_proposer(devnet, max_witness_gen=1, max_proof_requests=1)
    await sent(proposer)
    found = await explained(proposer, block=1100)
    assert codes(found) == [Code.WAITING_FOR_PROOFS, Code.SLOTS_FULL]


async def test_the_tail_is_shorter_than_a_range(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet, max_block_range=70, max_tail_wait=1000)
    await sent(proposer)
    assert (await explained(proposer)).cause.code is Code.TAIL_WAITS
    assert (await explained(proposer, block=1099)).cause.code is Code.TAIL_WAITS


async def test_an_operator_has_paused_it(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    await proposer.ledger.give_order(OrderKind.PAUSE, None, "alice@desk", "the contract is upgraded")
    await obey(proposer)
    found = await explained(proposer)
    assert codes(found) == [Code.PAUSED]
    assert "alice@desk: the contract is upgraded" in found.cause.sentence


async def test_the_server_is_away(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    await devnet.prover.stop()
    await sent(proposer)
    found = await explained(proposer, block=1001)
    assert codes(found) == [Code.WAITING_FOR_PROOFS, Code.SERVER_DOWN]


async def test_l1_is_away(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """The contract cannot be read: what the ledger knows leads as far as it can."""
    proposer = await make_proposer(devnet)
    await sent(proposer)
    await devnet.anvil.stop()
    assert codes(await explained(proposer)) == [Code.L1_DOWN]
    assert (await explained(proposer, block=1001)).cause.code is Code.L1_DOWN
    await devnet.anvil.start()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("updateAggregationVkey", Code.CONFIG_MISMATCH),
        ("enableOptimisticMode", Code.OPTIMISTIC_MODE),
        ("removeProposer", Code.NOT_APPROVED),
    ],
)
async def test_the_contract_was_changed(devnet: Devnet, make_proposer: MakeProposer, call: str, code: Code) -> None:
    proposer = await make_proposer(devnet)
    value = {"updateAggregationVkey": devnet.foreign_hash(), "enableOptimisticMode": 100}
    await devnet.owner_call(call, value.get(call, devnet.proposer_address), mine=True)
    assert codes(await explained(proposer)) == [code]


async def test_a_mismatch_does_not_hold_up_what_is_proven(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """A range that still has to be asked for waits for the server; the mismatch is named, not the slots."""
    proposer = await make_proposer(devnet, max_witness_gen=1, max_proof_requests=1)
    await sent(proposer)
    await devnet.owner_call("updateRollupConfigHash", devnet.foreign_hash(), mine=True)
    found = await explained(proposer, block=1100)
    assert found.cause.code is Code.CONFIG_MISMATCH


async def test_the_node_is_on_a_fork(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    devnet.op_node.faults.wrong_roots = {1000}
    assert codes(await explained(proposer)) == [Code.NODE_DISAGREES]


async def test_the_node_changed_its_mind_about_the_root(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    ready = await aggregation(proposer, Status.COMPLETE)
    devnet.op_node.faults.wrong_roots = {1100}
    found = await explained(proposer)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.ROOT_CHANGED]
    assert found.cause.facts["request"] == ready.id


async def test_an_aggregation_is_proven(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    """A proven range leads on to the aggregation that has it, and to what that waits for."""
    devnet = await start_devnet()
    proposer = await make_proposer(devnet)
    await aggregation(proposer, Status.UNREQ)
    devnet.prover.faults.replace(FaultPlan(rules=(Fault(kind="late", on="aggregation", seconds=600),)))
    await aggregation(proposer, Status.PROVING)
    (first, *_) = await every_request(proposer)
    found = await explained(proposer, request=first.id)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.PROOF_UNDER_WAY]
    assert "PROVING" in found.chain[0].sentence


async def test_the_program_refuses_the_aggregation(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="refuse_simulation", on="aggregation"),)))
    proposer = await make_proposer(devnet)
    await aggregation(proposer, Status.FAILED)
    found = await explained(proposer)
    assert found.cause.code is Code.AGGREGATION_REFUSED


async def test_a_checkpoint_is_not_mined_yet_and_then_at_the_fee_limit(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """Aggregation, checkpoint, fee cap: each link names the next."""
    proposer = await make_proposer(
        devnet, resubmission_timeout=0.001, fee_limit_threshold_gwei=1, fee_limit_multiplier=2
    )

    async def ranges_are_proven() -> bool:
        return len(await with_status(proposer, Status.COMPLETE)) == 2

    await until(proposer, ranges_are_proven, seconds=60)
    await stand_still(devnet)
    await cycle(proposer)
    pending = await explained(proposer)
    assert codes(pending) == [Code.AGGREGATION_UNDER_WAY, Code.CHECKPOINT_PENDING]
    for _ in range(40):
        if (await tend(proposer)).reasons:
            break
    capped = await explained(proposer)
    assert codes(capped) == [Code.AGGREGATION_UNDER_WAY, Code.CHECKPOINT_PENDING, Code.FEE_CAP]
    assert capped.cause.facts["nonce"] == capped.chain[1].facts["nonce"]


async def test_a_proposal_is_not_mined_yet(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """It was sent: a pause does not hold it up any more."""
    proposer = await make_proposer(devnet)
    await aggregation(proposer, Status.COMPLETE)
    await stand_still(devnet)
    await proposer.ledger.give_order(OrderKind.PAUSE, None, "alice@desk", "lunch")
    await cycle(proposer)
    await obey(proposer)
    found = await explained(proposer)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.PROPOSAL_PENDING]
    assert [reason.code for reason in found.also] == [Code.PAUSED]


async def test_the_account_is_busy_with_another_transaction(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    ready = await aggregation(proposer, Status.COMPLETE)
    async with proposer.ledger.connect() as connection:
        await connection.execute(
            text("UPDATE l1_transactions SET status = 'PENDING', block_number = NULL, block_hash = NULL, nonce = 9")
        )
        await connection.commit()
    found = await explained(proposer, request=ready.id)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.SIGNER_BUSY]


async def test_the_key_of_a_transaction_that_is_not_mined_was_changed(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """Its fee cannot be raised, so it is not said that this happens by itself."""
    proposer = await make_proposer(devnet, resubmission_timeout=0.001)
    await aggregation(proposer, Status.COMPLETE)
    await stand_still(devnet)
    await cycle(proposer)
    _, key = account_key(3)
    proposer.signer = LocalSigner(private_key=SecretStr(key))
    found = await explained(proposer)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.PROPOSAL_PENDING, Code.KEY_CHANGED]


async def test_the_account_cannot_pay(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """For the proposal, and before it for the checkpoint."""
    proposer = await make_proposer(devnet)
    await aggregation(proposer, Status.COMPLETE)
    await devnet.l1.call("anvil_setBalance", devnet.proposer_address, hex(10**12))
    found = await explained(proposer)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.CANNOT_PAY]


async def test_the_account_cannot_pay_for_the_checkpoint(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    await devnet.l1.call("anvil_setBalance", devnet.proposer_address, hex(10**12))
    await aggregation(proposer, Status.UNREQ)
    await stand_still(devnet)
    await devnet.anvil.mine(3)  # the block to anchor to is not the newest any more
    found = await explained(proposer)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.CANNOT_PAY]
    assert "checkpoint" in found.cause.sentence


async def test_the_proposal_would_revert(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """The contract's own words are the name of the revert."""
    proposer = await make_proposer(devnet)
    await aggregation(proposer, Status.COMPLETE)
    await devnet.owner_call("updateVerifier", devnet.oracle_address, mine=True)
    found = await explained(proposer)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.PROPOSAL_REVERTS]
    assert "would revert" in found.cause.sentence


async def test_l1_was_reorganised_under_the_checkpoint(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    await aggregation(proposer, Status.COMPLETE)
    (checkpoint,) = await proposer.ledger.transactions(unsettled=False)
    assert checkpoint.block is not None
    await devnet.anvil.set_block_time(0)
    await devnet.anvil.reorg(await devnet.l1.block_number() - checkpoint.block + 2)  # one may be on its way
    assert codes(await explained(proposer)) == [Code.AGGREGATION_UNDER_WAY, Code.L1_REORG]


async def test_the_root_is_unknown_because_the_node_is_away(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)

    async def ranges_are_proven() -> bool:
        return len(await with_status(proposer, Status.COMPLETE)) == 2

    await until(proposer, ranges_are_proven, seconds=60)
    await devnet.op_node.stop()
    await aggregation(proposer, Status.COMPLETE)
    found = await explained(proposer)
    assert codes(found) == [Code.AGGREGATION_UNDER_WAY, Code.ROOT_UNKNOWN, Code.NODE_DOWN]


async def test_a_settled_block_names_its_output_and_transaction(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Ours by request and transaction; another proposer's is said to be none of ours."""
    proposer = await make_proposer(devnet)
    await until(proposer, settled(devnet, 1100), seconds=60)
    (ours,) = [r for r in await every_request(proposer) if r.kind is Kind.AGG]

    async def relayed() -> bool:
        return (await proposer.ledger.request(ours.id)).status is Status.RELAYED

    await until(proposer, relayed, seconds=60)
    mined = await proposer.ledger.proposed_by(ours.id)
    assert mined is not None
    for asked in ({"block": 1020}, {"request": 1}, {"request": ours.id}):
        found = await explained(proposer, **asked)
        assert codes(found) == [Code.SETTLED]
        assert f"output of block 1100 (request {ours.id})" in found.cause.sentence
        assert "0x" + mined.hex() in found.cause.sentence
    devnet.l2.advance_to(1200)
    await devnet.competing_proposal(1200, mine=True)
    theirs = await explained(proposer, block=1150)
    assert codes(theirs) == [Code.SETTLED]
    assert "not this proposer's" in theirs.cause.sentence


async def test_a_request_that_does_not_exist(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    with pytest.raises(UnknownRequest, match="no proof request 404"):
        await explained(proposer, request=404)


async def test_a_whole_settlement_is_explained_at_every_step(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Beside a working proposer every look has an answer, none of them alarming, and asks for no proof."""
    proposer = await make_proposer(devnet)
    seen: set[Code] = set()

    async def look() -> bool:
        posts = len(devnet.prover.log.of("post"))
        found = await explained(proposer, block=1100)
        assert len(devnet.prover.log.of("post")) == posts
        seen.add(found.cause.code)
        return found.cause.code is Code.SETTLED

    await until(proposer, look, seconds=60)
    alarming = {Code.NO_LEADER, Code.REQUEST_PARKED, Code.PROPOSAL_REVERTS, Code.L1_DOWN, Code.FEE_CAP}
    assert not seen & alarming, seen
