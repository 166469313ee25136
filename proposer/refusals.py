"""When the program refuses an aggregation: which of its range proofs is to blame, and what is tried to find out.

A refusal costs nothing: the server simulates first. So the same chain is tried once with a newer checkpoint; then
shorter chains from the same start, halving what is left, until one range proof is blamed and proven anew.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from proposer.requests import Commitments, Failure, Kind, ProofRequest
from proposer.snapshot import Snapshot

TRIES = 2
"""How often the same chain is tried, each time with another checkpoint."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Ask for these members, the refused ones or the first of them; `refused` is the request that led here."""

    refused: ProofRequest
    members: tuple[ProofRequest, ...]


@dataclass(frozen=True, slots=True)
class ProveAnew:
    """These range proofs make the program refuse what `refused` aggregates."""

    refused: ProofRequest
    culprits: tuple[ProofRequest, ...]


def suspects(snapshot: Snapshot, start: int, commitments: Commitments) -> tuple[ProofRequest, ...]:
    """Return the range proofs of which one makes the program refuse every chain from `start`; none before that is sure.

    Whoever can look at L1 says which of them are bound to a head that is not canonical any more.
    """
    shortest = _shortest(snapshot, start, commitments)
    if shortest is None or _another_checkpoint_may_help(snapshot, shortest):
        return ()
    return _members(snapshot, shortest)


def after_refusal(
    snapshot: Snapshot, start: int, commitments: Commitments, orphaned: Collection[int]
) -> TryAgain | ProveAnew | None:
    """Say what follows the refusals of chains from `start`; None where none counts any more.

    `orphaned` are requests whose L1 head is known not to be canonical: those are blamed without any further try.
    """
    shortest = _shortest(snapshot, start, commitments)
    if shortest is None:
        return None
    members = _members(snapshot, shortest)
    if _another_checkpoint_may_help(snapshot, shortest):
        return TryAgain(shortest, members)
    if gone := tuple(r for r in members if r.id in orphaned):
        return ProveAnew(shortest, gone)
    accepted = _longest_accepted(snapshot, shortest)
    if len(members) - accepted > 1:
        return TryAgain(shortest, members[: (accepted + len(members)) // 2])
    return ProveAnew(shortest, (_culprit(snapshot, members),))


def is_probe(snapshot: Snapshot, request: ProofRequest) -> bool:
    """Whether an aggregation only finds out which part of a refused one the program accepts."""
    return any(_is_longer(refused, request) for refused in _refused(snapshot, request.range.start, request.commitments))


def _refused(snapshot: Snapshot, start: int, commitments: Commitments) -> list[ProofRequest]:
    """Refused chains from a block whose range proofs all still stand."""
    proven = {r.id for r in snapshot.proven_ranges(commitments)}
    return [
        r
        for r in snapshot.attempts_above
        if r.kind is Kind.AGG
        and r.failure is Failure.REFUSED_IN_SIMULATION
        and r.range.start == start
        and r.commitments == commitments
        and proven.issuperset(r.members)
    ]


def _shortest(snapshot: Snapshot, start: int, commitments: Commitments) -> ProofRequest | None:
    return min(_refused(snapshot, start, commitments), key=lambda r: (len(r.members), r.id), default=None)


def _is_longer(one: ProofRequest, other: ProofRequest) -> bool:
    return len(one.members) > len(other.members) > 0 and one.members[: len(other.members)] == other.members


def _another_checkpoint_may_help(snapshot: Snapshot, refused: ProofRequest) -> bool:
    """Whether a chain was tried with too few checkpoints; part of a longer refused one is not tried again."""
    alike = _refused(snapshot, refused.range.start, refused.commitments)
    if any(_is_longer(other, refused) for other in alike):
        return False
    return sum(other.members == refused.members for other in alike) < TRIES


def _longest_accepted(snapshot: Snapshot, refused: ProofRequest) -> int:
    """How many of the first members the program has accepted together: such an aggregation was given an id.

    What it accepted before the first refusal may have been spoilt since.
    """
    first = min(r.id for r in _refused(snapshot, refused.range.start, refused.commitments))
    rows: Sequence[ProofRequest] = [*snapshot.of_kind(Kind.AGG), *snapshot.attempts_above]
    lengths = (
        len(r.members)
        for r in rows
        if r.kind is Kind.AGG and r.id > first and r.prover_id is not None and _is_longer(refused, r)
    )
    return max(lengths, default=0)


def _members(snapshot: Snapshot, aggregation: ProofRequest) -> tuple[ProofRequest, ...]:
    by_id = {r.id: r for r in snapshot.of_kind(Kind.RANGE)}
    return tuple(by_id[i] for i in aggregation.members)


def _culprit(snapshot: Snapshot, members: Sequence[ProofRequest]) -> ProofRequest:
    """Blame the last: the program accepts all before it. Where it was proven anew already, the seam is to blame.

    Two range proofs that disagree about the root between them are each fine alone.
    """
    last, before = members[-1], members[-2] if len(members) > 1 else None
    if before is not None and _is_new(snapshot, last) and not _is_new(snapshot, before):
        return before
    return last


def _is_new(snapshot: Snapshot, request: ProofRequest) -> bool:
    """Whether a range was proven anew because an aggregation of its first proof was refused."""
    blamed = {r.id for r in snapshot.attempts_above if r.failure is Failure.NOT_AGGREGATABLE}
    return request.parent in blamed
