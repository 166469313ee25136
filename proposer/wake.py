"""Whether a cycle started now would do something: the same decisions as in the cycle, without acting."""

from proposer.permission import Permission
from proposer.requests import Kind
from proposer.situation import decide
from proposer.snapshot import Snapshot


def to_do(snapshot: Snapshot, allowed: Permission) -> tuple[str, ...]:
    """Name what a cycle would do now, most urgent first; empty when it would do nothing."""
    decided = decide(snapshot, allowed)
    submission, requests, aggregation, ranges = (
        decided.submission,
        decided.requests,
        decided.aggregation,
        decided.ranges,
    )
    return (
        *((f"propose request {submission.request}",) if submission.request is not None else ()),
        *(f"checkpoint L1 block {number}" for _, number in requests.checkpoint),
        *(f"{'aggregate' if new.kind is Kind.AGG else 'prove anew'} {new.range}" for new in aggregation.inserts),
        *(f"request {i}" for i in requests.start),
        *(f"{move.to.value.lower()} {move.request}" for move in (*ranges.moves, *aggregation.moves)),
        *(f"plan {new.range}" for new in ranges.inserts),
    )
