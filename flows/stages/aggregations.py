"""Stage 4, DeriveAggProofs."""

from flows.context import Cycle
from flows.report import StageReport
from proposer.errors import ProposerError
from proposer.plan_aggregation import plan_aggregation
from proposer.reasons import Code, Reason
from proposer.refusals import suspects
from proposer.requests import Kind, NewRequest, ProofRequest, Status
from proposer.snapshot import Snapshot


async def derive(cycle: Cycle) -> StageReport:
    """Insert the next aggregation, and write down the output root that each one claims as soon as the node says it."""
    snapshot = await cycle.snapshot()
    decided = plan_aggregation(snapshot, cycle.permission.may_request, await _orphaned(cycle, snapshot))
    report = StageReport(reasons=list(decided.reasons))
    report.did += [cycle.said(move) for move in decided.moves]
    report.did += [f"{'would plan' if cycle.dry_run else 'planned'} {_what(new)}" for new in decided.inserts]
    if cycle.dry_run:
        await cycle.imagine(decided)
        return report
    if decided.moves or decided.inserts:
        async with cycle.proposer.write() as writer:
            await writer.apply(decided, cycle.run_id)
    missing = [r for r in (await cycle.snapshot()).of_kind(Kind.AGG) if r.output_root is None and _matters(r)]
    report.reasons = [*report.reasons, *[reason for r in missing if (reason := await _claim_root(cycle, r))]]
    return report


def _what(new: NewRequest) -> str:
    if new.kind is Kind.RANGE:
        return f"{new.range} (attempt {new.attempt})"
    return f"aggregation {new.range} of {len(new.members)} proofs"


async def _orphaned(cycle: Cycle, snapshot: Snapshot) -> set[int]:
    """Return the range proofs of a refused aggregation whose L1 head is not on the chain any more.

    The server binds a proof to that head or to a block below it, and says neither: it is a reason to suspect the
    proof once the program has refused what it is part of. While L1 cannot be read there is no such reason.
    """
    if snapshot.oracle is None:
        return set()
    under = suspects(snapshot, snapshot.oracle.latest_block, snapshot.oracle.commitments)
    orphaned: set[int] = set()
    for request in under:
        if request.l1_head is None:
            continue
        try:
            now = await cycle.proposer.l1.block(request.l1_head)
        except ProposerError:
            continue
        if now is not None and now.hash != request.l1_head_hash:
            orphaned.add(request.id)
    return orphaned


def _matters(request: ProofRequest) -> bool:
    return request.status in {Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.COMPLETE}


async def _claim_root(cycle: Cycle, request: ProofRequest) -> Reason | None:
    try:
        root = await cycle.proposer.node.output_root(request.range.end)
    except ProposerError as error:
        return Reason(
            Code.ROOT_UNKNOWN,
            f"The output root at block {request.range.end} is not known yet: {error}.",
            "Proving goes on; the root is asked for again in the next cycle.",
            {"request": request.id},
        )
    async with cycle.proposer.write() as writer:
        await writer.output_root(request.id, root)
    return None
