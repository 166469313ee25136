"""The six stages against real parts: each fails alone, and a dry run only tells."""

from flows.stages import observe
from infra.devnet import Devnet, Fault, FaultPlan
from proposer.reasons import Code
from proposer.requests import Kind, Status
from tests.devnets import StartDevnet
from tests.flows.conftest import MakeProposer, answered, cycle, due_now, every_request, looked, until, with_status


async def test_cycles_settle_an_output(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Stage by stage from nothing to a settled output, without Prefect."""
    proposer = await make_proposer(devnet)
    first = await cycle(proposer)
    assert first.failed == {}
    assert [sentence.split(" (")[0] for sentence in first.did] == [
        "planned 1000→1050",
        "planned 1050→1100",
        "requested range 1000→1050",
        "requested range 1050→1100",
    ]

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled)
    await cycle(proposer)
    assert {r.status for r in await every_request(proposer)} == {Status.RELAYED}


async def test_a_dry_run_tells_and_does_nothing(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """What would be done next is in the report; no row, no request, no transaction."""
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)
    await due_now(proposer)
    devnet.l2.advance_to(1200)
    await observe.remember(proposer, await observe.observe(proposer, observe.plainly))
    posts, rows = len(devnet.prover.log.of("post")), await every_request(proposer)
    report = await cycle(proposer, dry_run=True)
    assert [sentence.split(" (")[0] for sentence in report.did if not sentence.startswith("would ask for")] == [
        "would plan 1100→1150",
        "would plan 1150→1200",
        "would request range 1100→1150",
        "would request range 1150→1200",
    ]
    assert await every_request(proposer) == rows
    assert len(devnet.prover.log.of("post")) == posts
    assert await proposer.ledger.transactions(unsettled=False) == []


async def test_without_the_node_only_planning_waits(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Proofs under way are collected and new ones requested while the node is away; the reason says so."""
    proposer = await make_proposer(devnet, max_witness_gen=1)
    await cycle(proposer)
    await answered(proposer)
    await devnet.op_node.stop()
    devnet.l2.advance_to(1300)
    report = await cycle(proposer)
    assert report.failed == {}
    assert Code.NODE_DOWN in {reason.code for reason in report.reasons}
    assert [s for s in report.did if s.startswith("requested")], "the queued range is requested"
    await answered(proposer)
    await due_now(proposer)
    assert len(await with_status(proposer, Status.PROVING)) + len(await with_status(proposer, Status.COMPLETE)) == 2
    assert max(r.range.end for r in await every_request(proposer)) == 1100


async def test_without_the_node_a_known_root_is_proposed(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Once the aggregation has its root, settlement does not need the node."""
    proposer = await make_proposer(devnet)

    async def aggregation_is_proven() -> bool:
        return any(r.kind is Kind.AGG and r.status is Status.COMPLETE for r in await every_request(proposer))

    await until(proposer, aggregation_is_proven)
    await devnet.op_node.stop()

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled)


async def test_without_l1_proofs_are_still_collected(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """L1 away: nothing is planned or sent, no stage but the one that needs it fails, and proofs come in."""
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)
    await devnet.anvil.stop()
    await due_now(proposer)
    report = await cycle(proposer)
    assert Code.L1_DOWN in {reason.code for reason in report.reasons}
    assert set(report.failed) <= {"SubmitAggProofs"}
    await due_now(proposer)
    await looked(proposer)
    assert {r.status for r in await every_request(proposer)} == {Status.COMPLETE}
    await devnet.anvil.start()

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled)


async def test_without_the_server_settlement_of_proven_blocks_goes_on(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """The server away: a proven aggregation is proposed, new requests wait and are charged no attempt."""
    proposer = await make_proposer(devnet)

    async def aggregation_is_proven() -> bool:
        return any(r.kind is Kind.AGG and r.status is Status.COMPLETE for r in await every_request(proposer))

    await until(proposer, aggregation_is_proven)
    await devnet.prover.stop()
    devnet.l2.advance_to(1200)

    async def settled() -> bool:
        return await devnet.latest_block_number() == 1100

    await until(proposer, settled)
    waiting = [r for r in await every_request(proposer) if r.range.start >= 1100]
    assert [(r.status, r.attempt) for r in waiting] == [(Status.UNREQ, 1), (Status.UNREQ, 1)]
    report = await cycle(proposer)
    assert Code.SERVER_DOWN in {reason.code for reason in report.reasons}


async def test_a_look_that_fails_delays_no_other(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    """One id is answered with an error; the other proof is taken in the same round."""
    faults = FaultPlan(rules=(Fault(kind="status_500", block=1010),))
    devnet = await start_devnet(faults=faults)
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)

    async def one_is_proven() -> bool:
        return len(await with_status(proposer, Status.COMPLETE)) == 1

    await until(proposer, one_is_proven)
    (left,) = await with_status(proposer, Status.PROVING)
    assert left.range.start == 1000
