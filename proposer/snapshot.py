"""Everything one decision needs. What could not be read is None, and every decision says what it does without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from proposer.l1_transactions import L1Transaction
from proposer.requests import OPEN, Commitments, Kind, ProofRequest, Status
from proposer.settings import ProposerSettings
from proposer.units import L1Block, L1Ref, L2Block, Wei

_QUOTED = 300
"""Letters of a server's error that are worth repeating."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """An L1 block as a checkpoint: its hash as the contract stores it, and its hash on the chain; None without one."""

    stored: bytes | None
    canonical: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleView:
    """The contract and the proposer's account, all read at the one L1 block `at`."""

    at: L1Ref
    safe: L1Block | None
    """Newest safe L1 block at the time of the read; None where the node does not know the tag."""
    latest_block: L2Block
    """`latestBlockNumber()`: the contract head."""
    latest_root: bytes | None
    """Output root stored at the contract head; None before the first output."""
    submission_interval: int
    commitments: Commitments
    optimistic: bool
    approved: bool
    """Whether the proposer's address, or address(0), is an approved proposer."""
    finalization_period: int
    """Seconds."""
    balance: Wei | None
    """Of the proposer's account; None without one."""
    anchors: Mapping[int, Anchor] = field(default_factory=dict[int, Anchor])
    """The L1 blocks that aggregations are anchored to, and our newest checkpoints, by number."""

    def stored(self, number: int) -> bytes | None:
        """Return the hash that the contract stores for an L1 block, as far as it was read."""
        anchor = self.anchors.get(number)
        return anchor.stored if anchor is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What the L2 node says of its heads. Zeros while it starts."""

    finalized: L2Block
    unsafe: L2Block
    root_at_head: bytes | None
    """Its output root at the contract head."""


@dataclass(frozen=True, slots=True)
class ServerView:
    """The server's answer to `validate_config`; each field True where it agrees with the contract."""

    config_hash_valid: bool
    agg_vkey_valid: bool
    range_vkey_valid: bool

    @property
    def mismatches(self) -> tuple[str, ...]:
        """Names of the contract's values that differ from the server's."""
        named = {
            "rollupConfigHash": self.config_hash_valid,
            "aggregationVkey": self.agg_vkey_valid,
            "rangeVkeyCommitment": self.range_vkey_valid,
        }
        return tuple(name for name, valid in named.items() if not valid)


@dataclass(frozen=True, slots=True)
class Mark:
    """A block number and when it was first seen."""

    number: int
    at: datetime


def next_required(head: int, settings: ProposerSettings, oracle: OracleView | None) -> int:
    """The least L2 block that the output after `head` may have: the larger of both submission intervals further on."""
    return head + max(settings.submission_interval, oracle.submission_interval if oracle else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """One look at the chain, the node and the server; None where it failed, with the error's text in `errors`."""

    oracle: OracleView | None
    node: NodeView | None
    server: ServerView | None
    errors: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The outside and the ledger as they were at `now`."""

    now: datetime
    settings: ProposerSettings
    outside: Outside
    requests: Sequence[ProofRequest]
    """Every open row, every coverage row that reaches past the contract head, and completed ones not yet relayed."""
    transactions: Sequence[L1Transaction]
    """Unsettled ones, and those mined after the L1 block that the contract was read at."""
    finalized: Mark | None
    """Highest finalized L2 block ever seen."""
    required: Mark | None
    """The next required L2 block, and since when finality has reached it."""
    attempts_above: Sequence[ProofRequest] = ()
    """Failed and cancelled rows above the contract head: they carry attempt counts into a re-plan."""
    checkpointed: Sequence[int] = ()
    """L1 blocks of our newest checkpoints that are mined, whether the contract was read since or not."""

    @property
    def oracle(self) -> OracleView | None:
        """The contract, where it could be read."""
        return self.outside.oracle

    def next_required(self, head: int) -> int:
        """The least L2 block that the next output may have: head + the larger of both submission intervals."""
        return next_required(head, self.settings, self.oracle)

    def least_accepted(self, head: int) -> int:
        """The least L2 block that the contract takes for the next output, whatever the settings ask of new work."""
        return head + (self.oracle.submission_interval if self.oracle else 0)

    def ended_before(self, request: ProofRequest) -> str:
        """Quote what the attempt before this one ended with; empty where there was none, or it is not known."""
        parent = next((r for r in self.attempts_above if r.id == request.parent), None)
        if parent is None or not parent.failure_text:
            return ""
        return f" (request {parent.id}: {parent.failure_text[:_QUOTED]})"

    def of_kind(self, kind: Kind) -> list[ProofRequest]:
        """Requests of one kind, lowest first."""
        return sorted((r for r in self.requests if r.kind is kind), key=lambda r: (r.range.start, r.range.end, r.id))

    def open_ranges(self) -> list[ProofRequest]:
        """Range requests that hold their blocks."""
        return [r for r in self.of_kind(Kind.RANGE) if r.status in OPEN]

    def proven_ranges(self, commitments: Commitments) -> list[ProofRequest]:
        """Range requests whose proof is in hand and bound to these commitments."""
        return [
            r
            for r in self.of_kind(Kind.RANGE)
            if r.status in {Status.COMPLETE, Status.RELAYED}
            and (r.commitments.range_vkey, r.commitments.config_hash)
            == (commitments.range_vkey, commitments.config_hash)
        ]
