"""Whether the L1 block an aggregation is anchored to is still checkpointed, and what to do where it is not."""

from proposer.requests import ProofRequest, Status
from proposer.snapshot import OracleView, Snapshot

WINDOW = 256
"""L1 blocks whose hash the contract can still look up (`blockhash`); a stored checkpoint does not expire."""
MARGIN = 64
"""L1 blocks of that window kept in reserve for the transaction to be mined in."""

_BOUND = frozenset({Status.WITNESSGEN, Status.PROVING, Status.COMPLETE})


def leaves_window(number: int, head: int) -> bool:
    """Whether an L1 block is so old that its checkpoint may no longer be mined in time."""
    return number < head - (WINDOW - MARGIN)


def gone(oracle: OracleView, request: ProofRequest) -> str | None:
    """Say why an aggregation's proof can never be accepted again: its checkpoint was lost in a reorg for good."""
    anchor = oracle.anchors.get(request.checkpoint.number) if request.checkpoint else None
    if anchor is None or request.checkpoint is None or request.status not in _BOUND:
        return None
    number, expected = request.checkpoint.number, request.checkpoint.hash
    if anchor.stored == expected:
        return None
    if anchor.stored is not None:
        return f"the contract has another hash of its L1 block {number} now: L1 was reorganised"
    if anchor.canonical != expected:
        return f"its checkpoint is gone, and so is L1 block {number}: L1 was reorganised"
    if leaves_window(number, oracle.at.number):
        return f"its checkpoint is gone, and L1 block {number} is too old to be checkpointed again"
    return None


def lost(snapshot: Snapshot) -> list[ProofRequest]:
    """Return the aggregations whose checkpoint was lost in a reorg, while its very block can be checkpointed again."""
    oracle = snapshot.oracle
    if oracle is None:
        return []
    return [
        r
        for r in snapshot.requests
        if r.checkpoint is not None
        and r.status in _BOUND
        and r.checkpoint.number in oracle.anchors
        and oracle.stored(r.checkpoint.number) is None
        and r.range.start >= oracle.latest_block
        and gone(oracle, r) is None
    ]
