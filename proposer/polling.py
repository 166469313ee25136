"""When to look at a request that is being proven, and what a look means."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from proposer.errors import BadReply
from proposer.requests import Failure, Kind, ProofRequest

LOOKS_WHILE_USUAL = 20
"""Looks at a request in the time in which proofs of its kind usually come, as far as one a second allows fewer."""
LEAST_WAIT_SECONDS = 0.25
LEAST_RANGE_PROOF_BYTES = 64
"""A compressed range proof has a megabyte; what is shorter than two words is something else."""


class Fulfillment(IntEnum):
    """SP1 network fulfilment status (protobuf)."""

    UNSPECIFIED = 0
    REQUESTED = 1
    ASSIGNED = 2
    FULFILLED = 3
    UNFULFILLABLE = 4


class Execution(IntEnum):
    """SP1 network execution status (protobuf)."""

    UNSPECIFIED = 0
    UNEXECUTED = 1
    EXECUTED = 2
    UNEXECUTABLE = 3


@dataclass(frozen=True, slots=True)
class ProofStatus:
    """The server's answer to a look; `proof` is None unless fulfilled, and may be empty then."""

    fulfillment: Fulfillment
    execution: Execution
    proof: bytes | None


@dataclass(frozen=True, slots=True)
class Proven:
    """The proof is there: it beats every deadline."""

    proof: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over without a proof."""

    failure: Failure
    text: str


@dataclass(frozen=True, slots=True)
class Usual:
    """How long proofs of this kind usually take, in seconds: when the quick ones and the slow ones arrive."""

    quick: float
    slow: float


def judge(request: ProofRequest, status: ProofStatus, max_proof_time: float, now: datetime) -> Proven | Ended | None:
    """Say what a look means; None is "still proving". Fulfilled counts first, whatever the clock says."""
    match status.fulfillment:
        case Fulfillment.FULFILLED if status.proof:
            return Proven(status.proof)
        case Fulfillment.FULFILLED:
            return Ended(Failure.BAD_PROOF, "the server says fulfilled and delivers an empty proof")
        case Fulfillment.UNFULFILLABLE if status.execution is Execution.UNEXECUTABLE:
            return Ended(Failure.UNEXECUTABLE, "the network cannot execute the program over these blocks")
        case Fulfillment.UNFULFILLABLE:
            return Ended(Failure.UNFULFILLABLE, "the network gave the request up or its deadline passed")
        case Fulfillment.UNSPECIFIED | Fulfillment.REQUESTED | Fulfillment.ASSIGNED:
            # since the server's answer: the network's own deadline runs from there, not from before the witness
            if now - request.since > timedelta(seconds=max_proof_time):
                waited = (now - request.since).total_seconds()
                return Ended(Failure.PROOF_TIMEOUT, f"no proof {waited:.0f} s after the server's answer")
            return None


def next_look(request: ProofRequest, usual: Usual | None, look_interval: float, now: datetime) -> datetime:
    """Say when to look again: every second while a proof usually comes, else every `look_interval` seconds.

    Where proofs of this kind come within few seconds of each other it is up to four times a second. Without history the
    interval grows with the age: a tenth of it, between one second and `look_interval`.
    """
    age = (now - (request.requested_at or request.since)).total_seconds()
    least = 1.0
    if usual is None:
        wait = age / 10
    else:
        least = min(max((usual.slow - usual.quick) / LOOKS_WHILE_USUAL, LEAST_WAIT_SECONDS), 1.0)
        if age < usual.quick:
            wait = usual.quick - age
        elif age <= usual.slow:
            wait = least
        else:
            wait = (age - usual.slow) / 10
    return now + timedelta(seconds=min(max(wait, least), look_interval))


def plausible(request: ProofRequest, status: ProofStatus) -> ProofStatus:
    """Refuse what is too short to be a range proof; the next look may well deliver it. An empty one is judged.

    Raises `BadReply`.
    """
    if request.kind is Kind.RANGE and status.proof and len(status.proof) < LEAST_RANGE_PROOF_BYTES:
        raise BadReply(f"the server says fulfilled and delivers {len(status.proof)} bytes: that is no range proof")
    return status
