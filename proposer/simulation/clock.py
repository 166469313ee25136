"""The virtual clock: what is to happen, in the order of its time, and then of its entry."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2025, 1, 1, tzinfo=UTC)
"""What second 0 is called where the core wants a date."""


def moment(seconds: float) -> datetime:
    """Name a virtual time as a date."""
    return START + timedelta(seconds=seconds)


def seconds(at: datetime) -> float:
    """Return a date's virtual time."""
    return (at - START).total_seconds()


class Clock:
    """Runs events; `now` is the time of the one that runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._entered = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen at a time that is not past."""
        self._entered += 1
        heapq.heappush(self._events, (max(when, self.now), self._entered, what))

    def step(self) -> bool:
        """Let the next thing happen; False where nothing is left."""
        if not self._events:
            return False
        self.now, _, what = heapq.heappop(self._events)
        what()
        return True
