"""The ledger in memory: the same rules as the real one's, and only the rows that a decision can still need."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from proposer.errors import IllegalTransition
from proposer.intents import Plan
from proposer.polling import Usual
from proposer.requests import IN_FLIGHT, OPEN, TRANSITIONS, Failure, Kind, NewRequest, ProofRequest, Status
from proposer.simulation.clock import Clock, moment
from proposer.simulation.durations import quantile
from proposer.simulation.outcome import Tally

_CLOSED = frozenset({Status.FAILED, Status.CANCELLED})
_USUAL_OF, _USUAL_FROM = 50, 5
"""As in `Ledger.usual`: how many of the last proofs count, and how many there must be."""


class Ledger:
    """Proof requests by id. Raises `IllegalTransition` where a change breaks the rules of the real ledger."""

    def __init__(self, clock: Clock, tally: Tally) -> None:
        self._clock = clock
        self._tally = tally
        self.rows: dict[int, ProofRequest] = {}
        """Open rows, coverage that is not settled, and closed rows above the contract head."""
        self.paid: set[int] = set()
        """Rows of `rows` that the network was asked for."""
        self.used: set[int] = set()
        """Rows of `rows` whose proofs are in a settlement."""
        self.version = 0
        """Another one after each change."""
        self._last = 0
        self._took: dict[Kind, deque[float]] = {kind: deque(maxlen=_USUAL_OF) for kind in Kind}
        self.usual: dict[Kind, Usual] = {}
        """How long proofs usually take, by kind, from the fifth on."""

    def insert(self, new: NewRequest) -> int:
        """Insert a row; open ranges never overlap, open aggregations never start at the same block."""
        for other in self.rows.values():
            if other.kind is new.kind and other.status in OPEN and new.status in OPEN:
                same = other.range.start == new.range.start
                if other.range.overlaps(new.range) if new.kind is Kind.RANGE else same:
                    raise IllegalTransition(f"{new.kind.value} {new.range} overlaps {other}")
        self._last += 1
        self.version += 1
        self.rows[self._last] = new.row(self._last, moment(self._clock.now))
        self._tally.parked += new.status is Status.PARKED
        return self._last

    def move(self, number: int, frm: Status, to: Status, **changes: Any) -> bool:
        """Compare and set; False where the row has another status by now, or is gone."""
        if to not in TRANSITIONS[frm]:
            raise IllegalTransition(f"request {number}: {frm.value} may not become {to.value}")
        row = self.rows.get(number)
        if row is None or row.status is not frm:
            return False
        self.version += 1
        self.rows[number] = replace(row, status=to, since=moment(self._clock.now), **changes)
        return True

    def fail(self, number: int, frm: Status, failure: Failure, follow: Iterable[NewRequest]) -> list[int]:
        """End an attempt and insert what carries on."""
        if not self.move(number, frm, Status.FAILED, failure=failure):
            return []
        self._tally.failed += 1
        return [self.insert(new) for new in follow]

    def complete(self, number: int) -> bool:
        """Store a proof, however late."""
        row = self.rows.get(number)
        if row is None or row.status in {Status.COMPLETE, Status.RELAYED}:
            return False
        if row.status is Status.PROVING and row.requested_at is not None:
            took = self._took[row.kind]
            took.append((moment(self._clock.now) - row.requested_at).total_seconds())
            if len(took) >= _USUAL_FROM:
                ordered = sorted(took)
                self.usual[row.kind] = Usual(quantile(ordered, 0.05), quantile(ordered, 0.95))
        return self.move(number, row.status, Status.COMPLETE, failure=None)

    def apply(self, plan: Plan) -> None:
        """Moves first, then inserts, as in one ledger transaction."""
        for move in plan.moves:
            changes: dict[str, Any] = {"failure": move.failure} if move.failure is not None else {}
            self.move(move.request, move.frm, move.to, **changes)
        for new in plan.inserts:
            self.insert(new)

    def forget(self, head: int) -> None:
        """Drop what no decision needs once the head has passed it; a proof that settled nothing was wasted."""
        for row in [r for r in self.rows.values() if r.range.end <= head and (r.status not in OPEN)]:
            if row.status is not Status.COMPLETE:  # the next plan says RELAYED first
                del self.rows[row.id]
                self._tally.wasted += row.id in self.paid and row.id not in self.used
                self.paid.discard(row.id)
                self.used.discard(row.id)

    def close(self, head: int) -> None:
        """Count what turns out to be wasted at the end: paid for, ended or passed by the head, and in no settlement."""
        for row in self.rows.values():
            over = row.status in _CLOSED or row.range.end <= head
            self._tally.wasted += over and row.id in self.paid and row.id not in self.used

    def view(self) -> tuple[Sequence[ProofRequest], Sequence[ProofRequest]]:
        """Return what a decision reads: live rows and closed ones."""
        rows = self.rows.values()
        return [r for r in rows if r.status not in _CLOSED], [r for r in rows if r.status in _CLOSED]

    def queue(self) -> tuple[int, int]:
        """Return how many ranges wait for a slot and how many are in flight."""
        ranges = [r.status for r in self.rows.values() if r.kind is Kind.RANGE]
        return sum(s is Status.UNREQ for s in ranges), sum(s in IN_FLIGHT for s in ranges)
