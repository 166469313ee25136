"""Stage 1, GetRangeProofBoundaries."""

from dataclasses import replace

from flows.context import Cycle
from flows.report import StageReport
from flows.transactions import tend
from proposer.intents import Move
from proposer.l1_transactions import TxStatus
from proposer.plan_ranges import plan_ranges
from proposer.requests import Kind, Status


async def plan(cycle: Cycle) -> StageReport:
    """Follow the contract head and insert the ranges nobody works on, in one ledger transaction."""
    snapshot = await cycle.snapshot()
    decided = plan_ranges(snapshot, cycle.permission.may_request)
    aggregations = {r.id for r in snapshot.of_kind(Kind.AGG)}
    unrecorded = {t.request for t in snapshot.transactions if t.status is TxStatus.PENDING}
    if not cycle.dry_run and any(m.to is Status.RELAYED and m.request in unrecorded for m in decided.moves):
        await tend(cycle.proposer)  # what has moved the head is ours, and its receipt was not looked at yet
    moves = [await _with_hash(cycle, move) if move.request in aggregations else move for move in decided.moves]
    decided = replace(decided, moves=tuple(moves))
    report = StageReport(reasons=decided.reasons)
    report.did += [cycle.said(move) for move in decided.moves]
    planned = "would plan" if cycle.dry_run else "planned"
    report.did += [f"{planned} {new.range} (attempt {new.attempt})" for new in decided.inserts]
    if cycle.dry_run:
        await cycle.imagine(decided)
    elif decided.moves or decided.inserts:
        async with cycle.proposer.write() as writer:
            await writer.apply(decided, cycle.run_id)
    return report


async def _with_hash(cycle: Cycle, move: Move) -> Move:
    """Name the transaction that has settled an aggregation, where it is one of ours."""
    if move.to is not Status.RELAYED:
        return move
    proposed = await cycle.proposer.ledger.proposed_by(move.request)
    return move if proposed is None else replace(move, why=f"{move.why} by 0x{proposed.hex()}")
