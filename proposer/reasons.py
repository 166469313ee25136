"""Why something is not happening now, and what to do about it: every "not now" and every "stuck" has exactly one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """Who should care."""

    WAITING = "waiting"
    """Normal: time will do it."""
    WARNING = "warning"
    """It goes on by itself once something outside is back."""
    CRITICAL = "critical"
    """A person must act."""


class Code(StrEnum):
    """The name of each cause, stable for alerts and documentation."""

    SETTLED = "settled"
    NEXT_CYCLE = "next-cycle"
    WITNESS_UNDER_WAY = "witness-under-way"
    PROOF_UNDER_WAY = "proof-under-way"
    ATTEMPT_ENDED = "attempt-ended"
    NO_LEADER = "no-leader"
    WAITING_FOR_FINALITY = "waiting-for-finality"
    WAITING_FOR_PROOFS = "waiting-for-proofs"
    TAIL_WAITS = "tail-waits"
    SLOTS_FULL = "slots-full"
    BACKING_OFF = "backing-off"
    AGGREGATION_UNDER_WAY = "aggregation-under-way"
    CHECKPOINT_PENDING = "checkpoint-pending"
    PROPOSAL_PENDING = "proposal-pending"
    SIGNER_BUSY = "signer-busy"
    L1_DOWN = "l1-down"
    L1_BEHIND = "l1-behind"
    L1_REORG = "l1-reorg"
    NODE_DOWN = "node-down"
    NODE_BEHIND = "node-behind"
    NODE_STARTING = "node-starting"
    SERVER_DOWN = "server-down"
    SIGNER_DOWN = "signer-down"
    ROOT_UNKNOWN = "root-unknown"
    SAFE_HEAD_UNKNOWN = "safe-head-unknown"
    PAUSED = "paused"
    CONFIG_MISMATCH = "config-mismatch"
    OPTIMISTIC_MODE = "optimistic-mode"
    NOT_APPROVED = "not-approved"
    LOW_BALANCE = "low-balance"
    CANNOT_PAY = "cannot-pay"
    NODE_DISAGREES = "node-disagrees"
    ROOT_CHANGED = "root-changed"
    PROPOSAL_REVERTS = "proposal-reverts"
    CHECKPOINT_REVERTS = "checkpoint-reverts"
    REQUEST_PARKED = "request-parked"
    AGGREGATION_REFUSED = "aggregation-refused"
    FEE_CAP = "fee-cap"
    KEY_CHANGED = "key-changed"
    SIGNER_REFUSES = "signer-refuses"
    CYCLES_FAIL = "cycles-fail"
    NONCE_DISPLACED = "nonce-displaced"
    TRANSACTION_REVERTED = "transaction-reverted"


SEVERITY: Mapping[Code, Severity] = {
    **dict.fromkeys(
        (
            Code.SETTLED,
            Code.NEXT_CYCLE,
            Code.WITNESS_UNDER_WAY,
            Code.PROOF_UNDER_WAY,
            Code.ATTEMPT_ENDED,
            Code.WAITING_FOR_FINALITY,
            Code.WAITING_FOR_PROOFS,
            Code.TAIL_WAITS,
            Code.SLOTS_FULL,
            Code.BACKING_OFF,
            Code.AGGREGATION_UNDER_WAY,
            Code.CHECKPOINT_PENDING,
            Code.PROPOSAL_PENDING,
            Code.SIGNER_BUSY,
        ),
        Severity.WAITING,
    ),
    **dict.fromkeys(
        (
            Code.L1_DOWN,
            Code.L1_BEHIND,
            Code.L1_REORG,
            Code.NODE_DOWN,
            Code.NODE_BEHIND,
            Code.NODE_STARTING,
            Code.SERVER_DOWN,
            Code.SIGNER_DOWN,
            Code.ROOT_UNKNOWN,
            Code.SAFE_HEAD_UNKNOWN,
            Code.AGGREGATION_REFUSED,
            Code.PAUSED,
            Code.OPTIMISTIC_MODE,
            Code.LOW_BALANCE,
            Code.TRANSACTION_REVERTED,
        ),
        Severity.WARNING,
    ),
    **dict.fromkeys(
        (
            Code.NO_LEADER,
            Code.CONFIG_MISMATCH,
            Code.NOT_APPROVED,
            Code.CANNOT_PAY,
            Code.NODE_DISAGREES,
            Code.ROOT_CHANGED,
            Code.PROPOSAL_REVERTS,
            Code.CHECKPOINT_REVERTS,
            Code.REQUEST_PARKED,
            Code.FEE_CAP,
            Code.KEY_CHANGED,
            Code.SIGNER_REFUSES,
            Code.CYCLES_FAIL,
            Code.NONCE_DISPLACED,
        ),
        Severity.CRITICAL,
    ),
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause: a sentence a person understands, the facts behind it, and what to do."""

    code: Code
    sentence: str
    remedy: str
    facts: Mapping[str, int | float | str] = field(default_factory=dict[str, "int | float | str"])

    @property
    def severity(self) -> Severity:
        """Who should care."""
        return SEVERITY[self.code]

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".strip()
