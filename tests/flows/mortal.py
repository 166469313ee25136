"""A process that may die between any two acts, or see one of them fail.

`Life` counts what a step does; the chosen act is the last one of the process, or fails. After its death every write and
every call of it raises `Died` and does nothing, as if the process were gone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from proposer.errors import EndpointDown, OutcomeUnknown
from tests.flows.outside_l1 import Chain
from tests.flows.outside_prover import Prover

T = TypeVar("T")


class Died(BaseException):
    """The process was killed: nothing may catch this."""


class Family(StrEnum):
    """What acts are counted by."""

    WRITE = "write"
    SEND = "send"
    READ = "read"


class End(StrEnum):
    """What becomes of the chosen act."""

    DIES_BEFORE = "dies before"
    DIES_AFTER = "dies after"
    FAILS_BEFORE = "fails before"
    FAILS_AFTER = "fails after"


@dataclass(frozen=True, repr=False)
class Doom:
    """The n-th act of its family in a step, and what becomes of it."""

    end: End
    family: Family
    n: int

    def __repr__(self) -> str:
        return f"<{self.family} {self.n} {self.end}>"


@dataclass
class World:
    """The whole outside, shared by all processes, and which endpoints are down."""

    chain: Chain
    prover: Prover
    finalized: int = 0
    down: set[str] = field(default_factory=set[str])
    violations: list[str] = field(default_factory=list[str])


@dataclass(eq=False)
class Life:
    """One process: alive or dead, its doom in the step under way, and which of its tasks wait for what."""

    name: str
    world: World
    log: Callable[[str], None]
    alive: bool = True
    leads: bool = False
    doom: Doom | None = None
    counts: dict[Family, int] = field(default_factory=dict[Family, int])
    waiting: set["asyncio.Task[Any] | None"] = field(default_factory=set["asyncio.Task[Any] | None"])
    """Tasks that wait for the server's answer."""
    stalled: set["asyncio.Task[Any] | None"] = field(default_factory=set["asyncio.Task[Any] | None"])
    """Tasks that wait to write again."""
    told: set[str] = field(default_factory=set[str])
    """Prover ids that the server's answers gave this process."""
    held: dict[int, "asyncio.Task[None]"] = field(default_factory=dict[int, "asyncio.Task[None]"])
    """The process's tasks that hold a request: they write again and again."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, doom: Doom | None) -> None:
        """Start counting anew."""
        self.doom, self.counts = doom, dict.fromkeys(Family, 0)

    def must_live(self) -> None:
        """Raise `Died` in whatever of a dead process still runs."""
        if not self.alive:
            raise Died(self.name)

    def strikes(self, family: Family, what: str) -> End | None:
        """Count an act; say whether it is the doomed one."""
        self.must_live()
        self.counts[family] = self.counts.get(family, 0) + 1
        doom = self.doom
        if doom is None or doom.family is not family or doom.n != self.counts[family]:
            return None
        self.doom = None
        self.log(f"{self.name}: {what} {doom.end}")
        return doom.end

    def die(self) -> Died:
        """End the process."""
        self.alive = False
        return Died(self.name)

    def stall(self) -> None:
        """Remember that this task could not write."""
        task = asyncio.current_task()
        if task in self.held.values():
            self.stalled.add(task)

    async def turn(self) -> None:
        """Hold up a task that writes again after a ledger that was away, until that may be back."""
        task = asyncio.current_task()
        while task in self.stalled and self.alive and "ledger" in self.world.down:
            self.changed.clear()
            await self.changed.wait()
        self.stalled.discard(task)

    async def act(
        self, endpoint: str, what: str, effect: Callable[[], T], family: Family = Family.READ, lost: bool = False
    ) -> T:
        """Call an endpoint: counted, and as doomed as this step says. Where `lost`, no answer leaves it unknown."""
        end = self.strikes(family, what)
        await asyncio.sleep(0)
        self.must_live()
        if end is End.DIES_BEFORE:
            raise self.die()
        if endpoint in self.world.down:
            raise EndpointDown(f"{endpoint} is down")
        if end is End.FAILS_BEFORE:
            raise OutcomeUnknown(f"{what}: lost on the way") if lost else EndpointDown(f"{what}: no answer")
        result = effect()
        if end is End.DIES_AFTER:
            raise self.die()
        if end is End.FAILS_AFTER:
            raise OutcomeUnknown(f"{what}: no answer") if lost else EndpointDown(f"{what}: no answer")
        return result
