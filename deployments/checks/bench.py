"""What a check works with, what it finds, and how it is run: alone, with a deadline, whatever becomes of the others."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from deployments.environment import Environment
from flows import desk
from flows.context import Proposer
from proposer.errors import ProposerError
from proposer.reasons import Code, Severity
from proposer.situation import Situation

DEADLINE_SECONDS = 20.0


class Level(IntEnum):
    """How bad it is; the worst is the doctor's exit status."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found, and what to do about it; the remedy of what is well is empty."""

    level: Level
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check by its name and the sentence that should be true, with what it found."""

    name: str
    line: str
    found: Found


def ok(what: str) -> Found:
    """All is well."""
    return Found(Level.OK, what)


def warning(what: str, remedy: str) -> Found:
    """It goes on, and somebody should look."""
    return Found(Level.WARNING, what, remedy)


def error(what: str, remedy: str) -> Found:
    """Somebody must act."""
    return Found(Level.ERROR, what, remedy)


class Bench:
    """One environment under examination; `proposer` is None where its ledger cannot be opened, `why` says why."""

    def __init__(self, environment: Environment, proposer: Proposer | None, why: str = "") -> None:
        self.environment = environment
        self.why = why
        self._proposer = proposer
        self._situation: asyncio.Task[Situation] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the ledger could be opened."""
        return self._proposer is not None

    @property
    def proposer(self) -> Proposer:
        """The blocks and the ledger. Raises `NotChecked` where the ledger could not be opened."""
        if self._proposer is None:
            raise NotChecked("the ledger cannot be opened")
        return self._proposer

    async def situation(self) -> Situation:
        """Look once, for all checks."""
        if self._situation is None:
            self._situation = asyncio.create_task(desk.look(self.proposer))
        return await self._situation

    async def by_reason(self, well: str, *codes: Code) -> Found:
        """Find what the proposer itself says under these names."""
        reason = (await self.situation()).reason(*codes)
        if reason is None:
            return ok(well)
        level = Level.ERROR if reason.severity is Severity.CRITICAL else Level.WARNING
        return Found(level, reason.sentence, reason.remedy)


class NotChecked(ProposerError):
    """What a check needs is not there; another check says why."""


Check = Callable[[Bench], Awaitable[Found]]


async def examine(bench: Bench, check: Check) -> Finding:
    """Run one check."""
    name = check.__name__.removeprefix("check_").replace("_", "-")
    line = (check.__doc__ or "").splitlines()[0]
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            found = await check(bench)
    except NotChecked as missing:
        found = warning(f"not checked: {missing}", "Repair that first.")
    except ProposerError as failed:
        found = error(str(failed), "Check the address and that it runs.")
    except TimeoutError:
        found = error(f"no answer within {DEADLINE_SECONDS:.0f} s", "Check the address and that it runs.")
    return Finding(name, line, found)
