"""The places at which the leader is killed: every await of the product that an outsider can see the other end of."""

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """A place of the stand-ins or the proxy; a commit's is narrowed to one that wrote a certain table."""

    place: str
    wrote: str | None = None
    often: bool = False
    """Whether it is reached many times a minute, so that the first arrival is as good as a later one."""

    def __str__(self) -> str:
        return f"{self.place} {self.wrote}" if self.wrote else self.place

    def takes(self, facts: Mapping[str, Any], leader: str) -> bool:
        """Say whether an arrival is this point's; a commit must be the leader's own."""
        if "wrote" not in facts:
            return True
        return facts["application"] == leader and self.wrote in facts["wrote"]


ANY_TIME = Point("any time")
"""Not a place: the leader is killed whatever it does."""

_FIRST = (
    Point("prover.range.paid"),
    Point("prover.range.answered"),
    Point("prover.aggregation.paid"),
    Point("prover.proof.answered"),
    Point("l1.eth_sendRawTransaction.arrived"),
    Point("l1.eth_sendRawTransaction.forwarded"),
    Point("postgres.commit.before", "l1_signed"),
    Point("postgres.commit.done", "proofs"),
    Point("postgres.commit.done", "request_events", often=True),
    ANY_TIME,
)
"""Where money is spent and written down; a run of ten kills has these."""
_COMMITS = {
    "request_events": True,
    "marks": True,
    "proofs": False,
    "aggregation_members": False,
    "l1_signed": False,
    "l1_transactions": False,
}
"""The tables of a commit, and whether it comes often."""
_OTHERS = (
    Point("prover.range.arrived"),
    Point("prover.aggregation.arrived"),
    Point("prover.aggregation.answered"),
    Point("prover.proof.answering"),
    Point("prover.status.arrived", often=True),
    Point("prover.status.answered", often=True),
    Point("prover.config.answered"),
    Point("l1.eth_sendRawTransaction.answered"),
    Point("l1.eth_estimateGas.answered"),
    Point("l1.eth_getTransactionReceipt.arrived", often=True),
    Point("l1.eth_getTransactionReceipt.answered", often=True),
    Point("node.optimism_outputAtBlock.answered"),
    Point("node.optimism_syncStatus.answered", often=True),
    *(
        Point(f"postgres.commit.{when}", table, often)
        for table, often in _COMMITS.items()
        for when in ("before", "done", "answered")
    ),
)
POINTS = (*_FIRST, *(point for point in _OTHERS if point not in _FIRST))

LEADERS_OWN = (
    "prover.range.arrived",
    "prover.aggregation.arrived",
    "prover.status.arrived",
    "l1.eth_sendRawTransaction.arrived",
)
"""Places that only a leader reaches: a process that starts or stands by asks for none of them."""


class Deck:
    """Kill points in a seeded order: the most important ones first, each once before any comes again."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._cards: deque[Point] = deque()
        self._deal(_FIRST)
        self._deal(tuple(point for point in POINTS if point not in _FIRST))

    def draw(self) -> Point:
        """Return the next point."""
        if not self._cards:
            self._deal(POINTS)
        return self._cards.popleft()

    def put_back(self, point: Point) -> None:
        """Try a point that was not reached again, after all others."""
        self._cards.append(point)

    def _deal(self, points: tuple[Point, ...]) -> None:
        self._cards.extend(self._dice.sample(points, len(points)))
