"""Stage 5, RequestQueuedProofs: fill all free slots at once; anchor aggregations first."""

from collections.abc import Coroutine
from dataclasses import replace

from blocks.output_oracle import encode_checkpoint
from flows.context import Cycle
from flows.report import StageReport
from flows.transactions import send
from flows.witness import hold
from flows.would import would_ask, would_call
from proposer.errors import NotLeader, ProposerError, Reverted
from proposer.imagine import named
from proposer.l1_transactions import Purpose
from proposer.plan_requests import plan_requests
from proposer.reasons import Code, Reason
from proposer.requests import Checkpoint, ProofRequest, Status
from proposer.units import L1Block


async def request_queued(cycle: Cycle) -> StageReport:
    """Claim and send every request that is due and has a slot, and checkpoint the L1 block an aggregation needs.

    One that fails delays no other.
    """
    proposer = cycle.proposer
    snapshot = await cycle.snapshot()
    decided = plan_requests(snapshot, cycle.permission.may_request)
    report = StageReport(reasons=list(decided.reasons))
    by_id = {r.id: r for r in snapshot.requests}
    if cycle.dry_run:
        for request_id in decided.start:
            report.did.append(f"would request {named(by_id[request_id])}")
            report.would.append(await would_ask(proposer, by_id[request_id], decided.anchors.get(request_id)))
        for request_id, number in decided.checkpoint:
            await _alone(_would_checkpoint(cycle, by_id[request_id], number, report), by_id[request_id], report)
        return report
    for request_id in decided.start:
        if not proposer.draining:
            starting = _start(cycle, by_id[request_id], decided.anchors.get(request_id), report)
            await _alone(starting, by_id[request_id], report)
    for request_id, number in decided.checkpoint:
        await _alone(_checkpoint(cycle, by_id[request_id], number, report), by_id[request_id], report)
    return report


async def _alone(act: Coroutine[None, None, None], request: ProofRequest, report: StageReport) -> None:
    try:
        await act
    except NotLeader:
        raise
    except ProposerError as error:
        report.errors.append(f"{request}: {error}")


async def _start(cycle: Cycle, request: ProofRequest, anchor: Checkpoint | None, report: StageReport) -> None:
    proposer = cycle.proposer
    if request.id in proposer.witnesses:
        return  # parked and taken up again while its first request still waits for the answer, which counts
    proposer.must_lead()
    async with proposer.write() as writer:
        claimed = await writer.claim(request.id, cycle.run_id, anchor)
    if claimed:
        hold(proposer, replace(request, status=Status.WITNESSGEN, checkpoint=anchor))
        report.did.append(f"requested {request}")


async def _checkpoint(cycle: Cycle, request: ProofRequest, number: int, report: StageReport) -> None:
    """Make the contract store the hash of an L1 block, or use it at once where anyone has done so already."""
    proposer = cycle.proposer
    in_contract = await _in_contract(cycle, number)
    if in_contract is not None:
        if request.status is not Status.UNREQ:
            return  # lost in a reorg, and somebody has made it again
        async with proposer.write() as writer:
            await writer.anchor(request.id, Checkpoint(L1Block(number), in_contract))
        report.did.append(f"anchored {request} to L1 block {number}, which the contract has")
        proposer.changed.set()
        return
    try:
        sent = await send(
            proposer,
            Purpose.CHECKPOINT,
            encode_checkpoint(number),
            request=request.id,
            subject=number,
        )
    except Reverted as error:
        report.reasons = [*report.reasons, checkpoint_reverts(number, error)]
        return
    if isinstance(sent, Reason):
        report.reasons = [*report.reasons, sent]
    else:
        report.did.append(f"checkpoint of L1 block {number} sent: 0x{sent.hex()}")


async def _in_contract(cycle: Cycle, number: int) -> bytes | None:
    assert cycle.outside.oracle is not None  # plan_requests names no checkpoint without it
    return await cycle.proposer.oracle.historic_hash(cycle.proposer.l1, number, cycle.outside.oracle.at)


async def _would_checkpoint(cycle: Cycle, request: ProofRequest, number: int, report: StageReport) -> None:
    if await _in_contract(cycle, number) is not None:
        report.did.append(f"would anchor {named(request)} to L1 block {number}, which the contract has")
        return
    report.did.append(f"would checkpoint L1 block {number} for {named(request)}")
    calldata = encode_checkpoint(number)
    report.would.append(await would_call(cycle.proposer, Purpose.CHECKPOINT, calldata, request))


def checkpoint_reverts(number: int, error: Reverted) -> Reason:
    """Say that a checkpoint's simulation reverts."""
    return Reason(
        Code.CHECKPOINT_REVERTS,
        f"checkpointBlockHash({number}) reverts: {error.name}.",
        "Nothing was sent. If it repeats, check that L1_RPC follows the chain's head.",
        {"block": number, "revert": error.name},
    )
