"""Stage 5, RequestQueuedProofs: fill all free slots at once; anchor aggregations first."""

from dataclasses import replace

from blocks.output_oracle import encode_checkpoint
from flows.context import Cycle
from flows.report import StageReport
from flows.transactions import send
from flows.witness import hold
from proposer.errors import Reverted
from proposer.l1_transactions import Purpose
from proposer.plan_requests import anchor_floor, plan_requests, reusable
from proposer.reasons import Code, Reason
from proposer.requests import Checkpoint, Kind, ProofRequest, Status
from proposer.snapshot import Snapshot
from proposer.units import L1Block

NEWEST_CHECKPOINTS = 5
"""How many of our checkpoints are looked at for reuse."""


async def request_queued(cycle: Cycle) -> StageReport:
    """Claim and send every request that is due and has a slot, and checkpoint the L1 block an aggregation needs."""
    proposer = cycle.proposer
    snapshot = await cycle.snapshot()
    stored = await _still_stored(cycle, snapshot)
    decided = plan_requests(snapshot, cycle.permission.may_request, stored)
    report = StageReport(reasons=list(decided.reasons))
    if cycle.dry_run:
        report.did += [f"would request {r}" for r in snapshot.requests if r.id in decided.start]
        report.did += [f"would checkpoint L1 block {number} for request {i}" for i, number in decided.checkpoint]
        return report
    by_id = {r.id: r for r in snapshot.requests}
    for request_id in decided.start:
        if not proposer.draining:
            await _start(cycle, snapshot, by_id[request_id], stored, report)
    for request_id, number in decided.checkpoint:
        await _checkpoint(cycle, by_id[request_id], number, report)
    return report


async def _still_stored(cycle: Cycle, snapshot: Snapshot) -> list[int]:
    """Return the L1 blocks that we checkpointed and whose hashes the contract has right now."""
    oracle = cycle.outside.oracle
    if oracle is None or not any(r.status is Status.UNREQ for r in snapshot.of_kind(Kind.AGG)):
        return []
    proposer = cycle.proposer
    numbers = (await proposer.ledger.checkpoints())[:NEWEST_CHECKPOINTS]
    return [n for n in numbers if await proposer.oracle.historic_hash(proposer.l1, n, oracle.at) is not None]


async def _start(
    cycle: Cycle, snapshot: Snapshot, request: ProofRequest, stored: list[int], report: StageReport
) -> None:
    proposer = cycle.proposer
    if request.kind is Kind.AGG:
        checkpoint = await _anchored(cycle, snapshot, request, stored)
        if checkpoint is None:
            return
        request = replace(request, checkpoint=checkpoint)
    if request.id in proposer.witnesses:
        return  # parked and taken up again while its first request still waits for the answer, which counts
    proposer.must_lead()
    async with proposer.write() as writer:
        claimed = await writer.claim(request.id, cycle.run_id)
    if claimed:
        hold(proposer, replace(request, status=Status.WITNESSGEN))
        report.did.append(f"requested {request}")


async def _anchored(cycle: Cycle, snapshot: Snapshot, request: ProofRequest, stored: list[int]) -> Checkpoint | None:
    """Bind the aggregation to a checkpoint, with the hash that the contract has right now; forget one that is gone.

    The hash that counts is the contract's, not the one this process may have seen before.
    """
    floor = anchor_floor(snapshot, request)
    assert not isinstance(floor, Reason)  # plan_requests starts no such request
    number = request.checkpoint.number if request.checkpoint else reusable(floor, stored)
    if number is None or cycle.outside.oracle is None:
        return None
    proposer = cycle.proposer
    in_contract = await proposer.oracle.historic_hash(proposer.l1, number, cycle.outside.oracle.at)
    changed = request.checkpoint is not None and request.checkpoint.hash != in_contract
    usable = None if in_contract is None or changed else Checkpoint(L1Block(number), in_contract)
    async with proposer.write() as writer:
        await writer.anchor(request.id, usable)
    return usable


async def _checkpoint(cycle: Cycle, request: ProofRequest, number: int, report: StageReport) -> None:
    """Make the contract store the hash of an L1 block, or use it at once where anyone has done so already."""
    proposer = cycle.proposer
    assert cycle.outside.oracle is not None  # plan_requests names no checkpoint without it
    in_contract = await proposer.oracle.historic_hash(proposer.l1, number, cycle.outside.oracle.at)
    if in_contract is not None:
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
        reason = Reason(
            Code.CHECKPOINT_REVERTS,
            f"checkpointBlockHash({number}) reverts: {error.name}.",
            "Nothing was sent. If it repeats, check that L1_RPC follows the chain's head.",
            {"block": number, "revert": error.name},
        )
        report.reasons = [*report.reasons, reason]
        return
    if isinstance(sent, Reason):
        report.reasons = [*report.reasons, sent]
    else:
        report.did.append(f"checkpoint of L1 block {number} sent: 0x{sent.hex()}")
