"""A proof request, its life, and what a failure leads to.

Statuses are op-succinct's (`UNREQ` .. `FAILED`) and three more. `TRANSITIONS` is the one place that says what may
follow what; the ledger's single writer refuses everything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from proposer.ranges import BlockRange
from proposer.units import L1Block


class Kind(StrEnum):
    """What a request proves."""

    RANGE = "RANGE"
    """The step over a range of L2 blocks."""
    AGG = "AGG"
    """A gap-free chain of range proofs, in the form the contract verifies."""


class Status(StrEnum):
    """Where a request stands."""

    UNREQ = "UNREQ"
    """Planned; nothing was asked of the server."""
    WITNESSGEN = "WITNESSGEN"
    """The request is about to be sent or was sent, and the server has not answered."""
    PROVING = "PROVING"
    """The server gave an id; the network proves."""
    COMPLETE = "COMPLETE"
    """The proof is stored here."""
    FAILED = "FAILED"
    """This attempt is over; another row carries on."""
    PARKED = "PARKED"
    """Out of attempts, or cancelled by the operator: occupies its blocks, costs nothing."""
    RELAYED = "RELAYED"
    """Settled: the contract's head has passed its end."""
    CANCELLED = "CANCELLED"
    """Superseded by the planner."""


OPEN = frozenset({Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.PARKED})
"""Statuses that hold their blocks: open ranges never overlap."""
COVERAGE = frozenset({Status.COMPLETE, Status.RELAYED})
"""Statuses with a proof in hand; coverage may overlap."""
IN_FLIGHT = frozenset({Status.WITNESSGEN, Status.PROVING})
"""Statuses that take one of the prover's slots."""

TRANSITIONS: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        # to COMPLETE: what was paid for before it was parked and taken up again may still arrive
        # to PROVING: taken up again while the answer to its first request was under way
        Status.UNREQ: frozenset({Status.WITNESSGEN, Status.PROVING, Status.COMPLETE, Status.PARKED, Status.CANCELLED}),
        # back to UNREQ when the server was down: nothing was asked, no attempt is charged
        Status.WITNESSGEN: frozenset(
            {Status.PROVING, Status.COMPLETE, Status.UNREQ, Status.FAILED, Status.PARKED, Status.CANCELLED}
        ),
        Status.PROVING: frozenset({Status.COMPLETE, Status.FAILED, Status.PARKED, Status.CANCELLED}),
        # to COMPLETE: what was paid for before the operator parked it may still arrive
        # to PROVING: taken up again with a prover id, it is looked at, not asked and paid for anew
        Status.PARKED: frozenset({Status.UNREQ, Status.PROVING, Status.COMPLETE, Status.CANCELLED}),
        Status.COMPLETE: frozenset({Status.RELAYED, Status.FAILED, Status.CANCELLED}),
        # deleteL2Outputs and reorgs rewind the contract's head, perhaps to before what is still stored
        Status.RELAYED: frozenset({Status.COMPLETE, Status.CANCELLED}),
        # a proof that arrives late is a proof
        Status.FAILED: frozenset({Status.COMPLETE}),
        Status.CANCELLED: frozenset({Status.COMPLETE}),
    }
)


class Failure(StrEnum):
    """Why an attempt ended without a proof; also the name of its run's state."""

    UNEXECUTABLE = "Unexecutable"
    """The program cannot be executed over this range (execution status 3): too large, or a bad block."""
    UNFULFILLABLE = "Unfulfillable"
    """The prover network gave up or let its deadline pass (fulfilment status 4)."""
    WITNESS_FAILED = "WitnessFailed"
    """The server answered the request with an error."""
    WITNESS_TIMEOUT = "WitnessGenTimeout"
    """The server did not answer within `WITNESS_GEN_TIMEOUT`."""
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    """The request was cut off before its answer: it may have been paid."""
    PROOF_TIMEOUT = "ProofTimeout"
    """No proof within `MAX_PROOF_TIME`, and none at the last look."""
    LOST_BY_SERVER = "LostByServer"
    """The server no longer knows the id it gave."""
    BAD_PROOF = "BadProof"
    """The server delivered a proof that cannot be one (empty, or not bytes)."""
    REFUSED_IN_SIMULATION = "RefusedInSimulation"
    """The aggregation program does not accept these range proofs with this checkpoint; nothing was paid."""
    REFUSED_BY_CONTRACT = "RefusedByContract"
    """The contract does not accept the aggregation proof; its simulation said so twice."""
    NOT_AGGREGATABLE = "NotAggregatable"
    """A range proof that the aggregation program does not accept, such as one bound to an L1 block that is gone."""
    SUPERSEDED = "Superseded"
    """The chain moved on: the head passed it, or its checkpoint or commitments are no longer the contract's."""
    CANCELLED_BY_OPERATOR = "CancelledByOperator"
    """A person cancelled it."""


@dataclass(frozen=True, slots=True)
class Commitments:
    """What a proof is bound to: the contract's range vkey, aggregation vkey and rollup config hash, each 32 bytes."""

    range_vkey: bytes
    agg_vkey: bytes
    config_hash: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An L1 block whose hash the contract stores: the anchor of an aggregation."""

    number: L1Block
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRequest:
    """One attempt at one proof: a row of the ledger, without the proof's bytes.

    `attempt` counts along parents and overlaps from 1. `since` is when the row took its status. `l1_head` is the L1
    head read after the server's answer, with its hash: no block above it is bound into the proof.
    """

    id: int
    kind: Kind
    range: BlockRange
    status: Status
    attempt: int
    since: datetime
    commitments: Commitments
    parent: int | None = None
    failure: Failure | None = None
    failure_text: str | None = None
    next_attempt_at: datetime | None = None
    next_poll_at: datetime | None = None
    prover_id: str | None = None
    requested_at: datetime | None = None
    claimed_epoch: int | None = None
    l1_head: L1Block | None = None
    l1_head_hash: bytes | None = None
    checkpoint: Checkpoint | None = None
    output_root: bytes | None = None
    proof_digest: bytes | None = None
    proof_length: int | None = None
    unknown_outcomes: int = 0
    members: tuple[int, ...] = ()

    def __str__(self) -> str:
        kind = "range" if self.kind is Kind.RANGE else "aggregation"
        return f"{kind} {self.range} (request {self.id}, attempt {self.attempt})"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request to be inserted."""

    kind: Kind
    range: BlockRange
    attempt: int
    commitments: Commitments
    status: Status = Status.UNREQ
    parent: int | None = None
    next_attempt_at: datetime | None = None
    checkpoint: Checkpoint | None = None
    output_root: bytes | None = None
    unknown_outcomes: int = 0
    members: tuple[int, ...] = ()
    why: str = ""

    def row(self, number: int, since: datetime) -> ProofRequest:
        """Return the row that inserting it makes: where rows are imagined, not stored."""
        return ProofRequest(
            id=number,
            kind=self.kind,
            range=self.range,
            status=self.status,
            attempt=self.attempt,
            since=since,
            commitments=self.commitments,
            parent=self.parent,
            next_attempt_at=self.next_attempt_at,
            checkpoint=self.checkpoint,
            output_root=self.output_root,
            unknown_outcomes=self.unknown_outcomes,
            members=self.members,
        )
