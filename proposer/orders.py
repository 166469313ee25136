"""What an operator orders: taken up by the leading process within one look, and kept with who and why."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class OrderKind(StrEnum):
    """What is ordered."""

    RETRY = "retry"
    """Take a parked or waiting request up at once."""
    CANCEL = "cancel"
    """Park an open request; one that is paid for is still looked at."""
    PAUSE = "pause"
    """Ask for no proof and send no new transaction until `resume`; what is under way is still looked after."""
    RESUME = "resume"
    """End a pause."""


ABOUT_A_REQUEST = frozenset({OrderKind.RETRY, OrderKind.CANCEL})


@dataclass(frozen=True, slots=True)
class Order:
    """One order; `done_at` and `outcome` are None until the leader has carried it out."""

    id: int
    kind: OrderKind
    request: int | None
    who: str
    why: str
    at: datetime
    done_at: datetime | None = None
    outcome: str | None = None
