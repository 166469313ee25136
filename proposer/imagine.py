"""What the ledger would hold if a plan were carried out: a dry run decides on from there, and nothing is written."""

from collections.abc import Mapping
from dataclasses import replace

from proposer.intents import Plan
from proposer.requests import Kind, ProofRequest, Status
from proposer.snapshot import Mark, Snapshot

_CLOSED = frozenset({Status.FAILED, Status.CANCELLED})


def as_remembered(snapshot: Snapshot) -> Snapshot:
    """Take what this look saw as the leader would write it down: nobody may lead."""
    node, oracle = snapshot.outside.node, snapshot.oracle
    finalized, required = snapshot.finalized, snapshot.required
    if node is not None and node.finalized > (finalized.number if finalized is not None else 0):
        finalized = Mark(node.finalized, snapshot.now)
    if oracle is not None and finalized is not None:
        needed = snapshot.next_required(oracle.latest_block)
        if finalized.number >= needed and (required is None or required.number != needed):
            required = Mark(needed, snapshot.now)
    return replace(snapshot, finalized=finalized, required=required)


def imagine(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """Return the snapshot as it would be after the plan. What it inserts has negative numbers: no row has."""
    to: Mapping[int, Status] = {move.request: move.to for move in plan.moves}
    moved = [replace(r, status=to[r.id], since=snapshot.now) if r.id in to else r for r in snapshot.requests]
    below = min([0, *(r.id for r in snapshot.requests)])
    inserted = [new.row(below - i, snapshot.now) for i, new in enumerate(plan.inserts, 1)]
    return replace(
        snapshot,
        requests=[*(r for r in moved if r.status not in _CLOSED), *inserted],
        attempts_above=[*snapshot.attempts_above, *(r for r in moved if r.status in _CLOSED)],
    )


def named(request: ProofRequest) -> str:
    """Name a request in what a dry run says; one that is only imagined has no number."""
    if request.id > 0:
        return str(request)
    kind = "range" if request.kind is Kind.RANGE else "aggregation"
    return f"{kind} {request.range} (new, attempt {request.attempt})"
