"""What a checked run came to."""

from dataclasses import dataclass, field


@dataclass
class Report:
    """What a run came to; ``violations`` is empty when every promise was kept."""

    outputs_settled: int = 0
    l2_block_settled: int = 0
    # Proof requests that were paid for, by the server's log.
    proof_requests: int = 0
    proofs_lost: int = 0
    proofs_paid_twice: int = 0
    # Paid for, and the id came too late or never: each may be asked for once more.
    unknown_outcomes: int = 0
    l1_transactions: int = 0
    reverted_transactions: int = 0
    duplicate_transactions: int = 0
    # Proposals that reverted because somebody else moved the head at the last moment: no violation.
    lost_races: list[str] = field(default_factory=list)
    gas_used: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Say whether nothing was violated."""
        return not self.violations

    @property
    def duplicates(self) -> int:
        """How often the same was paid for or sent again for nothing."""
        return self.proofs_paid_twice + self.duplicate_transactions
