"""What a decision wants done. Nothing here acts; the flows carry it out, print it (dry run) or simulate it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proposer.reasons import Reason
from proposer.requests import Checkpoint, Failure, NewRequest, Status


@dataclass(frozen=True, slots=True)
class Move:
    """Change a request's status, if it still has the one this was decided on."""

    request: int
    frm: Status
    to: Status
    why: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes that belong in one ledger transaction, moves first, and the reasons for what is not in it."""

    moves: tuple[Move, ...] = ()
    inserts: tuple[NewRequest, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Requests:
    """Which requests to send now, aggregations with their anchors, and which first need which L1 block checkpointed."""

    start: tuple[int, ...] = ()
    anchors: Mapping[int, Checkpoint] = field(default_factory=dict[int, Checkpoint])
    checkpoint: tuple[tuple[int, int], ...] = ()
    """(request, L1 block number)"""
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """The aggregation to propose now, or why there is none."""

    request: int | None = None
    reasons: tuple[Reason, ...] = ()
