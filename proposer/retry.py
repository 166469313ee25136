"""What follows a failed attempt: the same again later, two halves, or parked for a person.

Rules: an unexecutable range of more than one block is halved at once; anything else is tried again with exponential
back-off and jitter; after the cap it is parked. An outcome that stays unknown is asked again at most once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import assert_never

from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind, NewRequest, ProofRequest, Status

MAX_UNKNOWN_OUTCOMES = 1
"""How often the same blocks are asked for again although an answer was lost and may have been paid."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts per range, and the back-off between them: `base * 2**(attempt - 1)` seconds, at most `cap`, ±20 %."""

    max_attempts: int = 5
    base: float = 60
    cap: float = 1800

    def delay(self, failed: ProofRequest) -> timedelta:
        """How long to wait after this attempt; the jitter is a function of the request, so that a replay agrees."""
        plain = min(self.base * 2 ** min(failed.attempt - 1, 20), self.cap)
        return timedelta(seconds=plain * (1 + jitter(failed.id, failed.attempt)))


SERVER_DOWN_PAUSE_SECONDS = 10.0


def pause_while_down(request: int, asked_for: float = 0.0) -> timedelta:
    """How long a request waits that met a server which is down, or asks for a pause of so many seconds."""
    # the jitter stays in either case: not all come back at the same instant
    return timedelta(seconds=SERVER_DOWN_PAUSE_SECONDS * (1 + jitter(request)) + asked_for)


def jitter(*key: int) -> float:
    """A number in [-0.2, 0.2) that depends on nothing but the key."""
    digest = blake2b(repr(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32 * 0.4 - 0.2


def successors(failed: ProofRequest, failure: Failure, policy: RetryPolicy, now: datetime) -> list[NewRequest]:
    """Return the rows that carry on after `failed` ended with `failure`; none where nothing is to be tried again.

    An aggregation that the program refuses is the planner's to carry on: what comes next depends on which of its
    members were accepted before.
    """
    match failure:
        case Failure.UNEXECUTABLE if failed.kind is Kind.RANGE and failed.range.blocks > 1:
            return [
                _next(
                    failed,
                    failure,
                    half,
                    failed.attempt,
                    Status.UNREQ,
                    now,
                    why=f"half of {failed.range}, unexecutable",
                )
                for half in failed.range.halves()
            ]
        case Failure.UNEXECUTABLE if failed.kind is Kind.RANGE:
            return [_parked(failed, failure, now, "block cannot be executed by the program")]
        case Failure.CANCELLED_BY_OPERATOR | Failure.SUPERSEDED | Failure.REFUSED_IN_SIMULATION:
            return []
        # an id that the server has forgotten was paid for, too
        case Failure.OUTCOME_UNKNOWN | Failure.WITNESS_TIMEOUT | Failure.LOST_BY_SERVER if (
            failed.unknown_outcomes >= MAX_UNKNOWN_OUTCOMES
        ):
            return [
                _parked(failed, failure, now, f"{failure.value} twice: it may have been paid twice already", unknown=1)
            ]
        case Failure.OUTCOME_UNKNOWN | Failure.WITNESS_TIMEOUT | Failure.LOST_BY_SERVER:
            return [_again(failed, failure, policy, now, unknown=1)]
        case (
            Failure.UNEXECUTABLE
            | Failure.UNFULFILLABLE
            | Failure.WITNESS_FAILED
            | Failure.PROOF_TIMEOUT
            | Failure.BAD_PROOF
            | Failure.REFUSED_BY_CONTRACT
            | Failure.NOT_AGGREGATABLE
        ):
            return [_again(failed, failure, policy, now)]
        case _:
            assert_never(failure)


def _again(failed: ProofRequest, failure: Failure, policy: RetryPolicy, now: datetime, unknown: int = 0) -> NewRequest:
    if failed.attempt >= policy.max_attempts:
        return _parked(failed, failure, now, f"{failed.attempt} attempts failed, the last one {failure.value}", unknown)
    at = now + policy.delay(failed)
    return _next(
        failed, failure, failed.range, failed.attempt + 1, Status.UNREQ, at, f"again after {failure.value}", unknown
    )


def _parked(failed: ProofRequest, failure: Failure, now: datetime, why: str, unknown: int = 0) -> NewRequest:
    return _next(failed, failure, failed.range, failed.attempt + 1, Status.PARKED, now, why, unknown)


def _next(
    failed: ProofRequest,
    failure: Failure,
    over: BlockRange,
    attempt: int,
    status: Status,
    at: datetime,
    why: str,
    unknown: int = 0,
) -> NewRequest:
    return NewRequest(
        kind=failed.kind,
        range=over,
        attempt=attempt,
        commitments=failed.commitments,
        status=status,
        parent=failed.id,
        next_attempt_at=at,
        # refused: a newer checkpoint is tried, and the root is asked for anew, which no request to the prover contains
        checkpoint=None if failure is Failure.REFUSED_BY_CONTRACT else failed.checkpoint,
        output_root=None if failure is Failure.REFUSED_BY_CONTRACT else failed.output_root,
        unknown_outcomes=failed.unknown_outcomes + unknown if over == failed.range else 0,
        members=failed.members,
        why=why,
    )
