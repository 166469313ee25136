"""Stage 1, GetRangeProofBoundaries."""

from flows.context import Cycle
from flows.report import StageReport
from proposer.plan_ranges import plan_ranges


async def plan(cycle: Cycle) -> StageReport:
    """Follow the contract head and insert the ranges nobody works on, in one ledger transaction."""
    decided = plan_ranges(await cycle.snapshot(), cycle.permission.may_request)
    report = StageReport(reasons=decided.reasons)
    report.did += [f"{move.to.value.lower()}: request {move.request}, {move.why}" for move in decided.moves]
    report.did += [f"planned {new.range} (attempt {new.attempt})" for new in decided.inserts]
    if not cycle.dry_run and (decided.moves or decided.inserts):
        async with cycle.proposer.write() as writer:
            await writer.apply(decided, cycle.run_id)
    return report
