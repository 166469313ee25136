"""Stage 4, DeriveAggProofs."""

from flows.context import Cycle
from flows.report import StageReport
from proposer.errors import ProposerError
from proposer.plan_aggregation import plan_aggregation
from proposer.reasons import Code, Reason
from proposer.requests import Kind, ProofRequest, Status


async def derive(cycle: Cycle) -> StageReport:
    """Insert the next aggregation, and write down the output root that each one claims as soon as the node says it."""
    decided = plan_aggregation(await cycle.snapshot(), cycle.permission.may_request)
    report = StageReport(reasons=list(decided.reasons))
    report.did += [f"{move.to.value.lower()}: aggregation {move.request}, {move.why}" for move in decided.moves]
    report.did += [f"planned aggregation {new.range} of {len(new.members)} proofs" for new in decided.inserts]
    if cycle.dry_run:
        return report
    if decided.moves or decided.inserts:
        async with cycle.proposer.write() as writer:
            await writer.apply(decided, cycle.run_id)
    missing = [r for r in (await cycle.snapshot()).of_kind(Kind.AGG) if r.output_root is None and _matters(r)]
    report.reasons = [*report.reasons, *[reason for r in missing if (reason := await _claim_root(cycle, r))]]
    return report


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
