"""Places in the stand-ins that an outside observer can wait at: how far an exchange has come, on its way or back."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Action = Callable[[Mapping[str, Any]], Awaitable[bool | None]]

# How long an exchange stands still after an action, so that a connection it cut is known to be cut.
NOTICE_S = 0.05


class Trap:
    """One armed action; it springs once."""

    def __init__(self, place: str, action: Action, skip: int, disarm: Callable[["Trap"], None]) -> None:
        """Wait at ``place``; made by ``Traps.arm``."""
        self.place = place
        self.sprung = False
        self._action, self._skip, self._disarm = action, skip, disarm
        self._deciding = False

    def takes(self, place: str) -> bool:
        """Say whether this arrival at ``place`` is the trap's; one to be skipped is counted."""
        wanted = place.startswith(self.place[:-1]) if self.place.endswith("*") else place == self.place
        if not wanted or self._deciding or self.sprung:
            return False
        self._skip -= 1
        return self._skip < 0

    async def spring(self, facts: Mapping[str, Any]) -> None:
        """Run the action; stay armed if it declines."""
        self._deciding = True
        try:
            self.sprung = await self._action(facts) is not False
        except BaseException:
            self.sprung = True
            raise
        finally:
            self._deciding = False
            if self.sprung:
                self._disarm(self)

    def disarm(self) -> None:
        """Wait no longer; do nothing if the trap has sprung."""
        self._disarm(self)


class Traps:
    """What an observer waits for, and how often each place was reached.

    One exchange reaches its places in this order; a fault or a refusal ends it early, and ``answered`` is reached only
    where a whole answer was handed to a client that was still there::

        prover.<range|aggregation>.arrived, .paid, .answered    start, end; from .paid on proof_id
        prover.status.arrived, .answered                        proof_id; .answered also kind, start, end
        prover.proof.answering, .answered                       the same, around a status answer that carries a proof
        prover.config.answered
        node.<method>.arrived, .answered                        params; .answered also answer
        l1.<method>.arrived, .forwarded, .answered              params; from .forwarded on answer
        postgres.commit.before, .done, .answered                wrote, application
    """

    def __init__(self) -> None:
        """Arm nothing."""
        self.counts: Counter[str] = Counter()
        self._armed: list[Trap] = []

    def arm(self, place: str, action: Action, *, skip: int = 0) -> Trap:
        """Await ``action`` once when ``place`` is reached, after ``skip`` times; ``place`` may end with ``*``.

        The action gets the facts and ``place``. One that returns False declines: the trap stays armed for the next
        arrival. Arrivals while it decides are not its own.
        """
        trap = Trap(place, action, skip, self._disarm)
        self._armed.append(trap)
        return trap

    async def reach(self, place: str, **facts: Any) -> None:
        """Count an arrival and await the first armed trap that takes it."""
        self.counts[place] += 1
        for trap in self._armed:
            if trap.takes(place):
                await trap.spring({"place": place, **facts})
                await asyncio.sleep(NOTICE_S if trap.sprung else 0)
                return

    def arrived(self, edge: str) -> int:
        """Return how many requests have arrived at an edge so far, such as ``l1``."""
        return sum(n for place, n in self.counts.items() if place.startswith(f"{edge}.") and place.endswith(".arrived"))

    def _disarm(self, trap: Trap) -> None:
        if trap in self._armed:
            self._armed.remove(trap)
