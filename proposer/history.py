"""What became of requests over time: each one's life as phases, for a person to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind, Status


class Phase(StrEnum):
    """What a request waits for, or how it ended."""

    QUEUED = "queued"
    """Planned: it waits for a slot, for its time, or for its checkpoint."""
    WITNESS = "witness"
    """The server prepares the witness."""
    PROVING = "proving"
    """The network proves."""
    PROVEN = "proven"
    """The proof is here and waits for its settlement."""
    PARKED = "parked"
    """A person has to look."""
    SETTLED = "settled"
    FAILED = "failed"
    CANCELLED = "superseded"


PHASES = {
    Status.UNREQ: Phase.QUEUED,
    Status.WITNESSGEN: Phase.WITNESS,
    Status.PROVING: Phase.PROVING,
    Status.COMPLETE: Phase.PROVEN,
    Status.PARKED: Phase.PARKED,
    Status.RELAYED: Phase.SETTLED,
    Status.FAILED: Phase.FAILED,
    Status.CANCELLED: Phase.CANCELLED,
}
ENDS = frozenset({Phase.SETTLED, Phase.FAILED, Phase.CANCELLED})
"""Phases that last for ever: shown as a mark where they begin."""


@dataclass(frozen=True, slots=True)
class Step:
    """A request took a status."""

    at: datetime
    status: Status
    failure: Failure | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A request and the steps it took, oldest first; `run` is the id of its run in Prefect."""

    id: int
    kind: Kind
    range: BlockRange
    attempt: int
    steps: Sequence[Step]
    run: str | None = None

    @property
    def name(self) -> str:
        """Its name, such as `range 1000→1300 · attempt 1`."""
        return request_name(self.kind, self.range, self.attempt)

    @property
    def end(self) -> Step | None:
        """The step that ended it; None while something is still to become of it."""
        last = self.steps[-1]
        return last if PHASES[last.status] in ENDS else None


@dataclass(frozen=True, slots=True)
class Span:
    """A phase from one time to another."""

    phase: Phase
    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.begin).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The lives of the requests that something became of since `since`, as far as they are not too many.

    `settled` are the outputs of ours in that time: the time and the L2 block. `left_out` counts older lives.
    """

    now: datetime
    since: datetime
    lives: Sequence[Life]
    settled: Sequence[tuple[datetime, int]]
    left_out: int = 0


def request_name(kind: Kind, blocks: BlockRange, attempt: int) -> str:
    """Name a request, such as `range 1000→1300 · attempt 1`."""
    return f"{'range' if kind is Kind.RANGE else 'aggregation'} {blocks} · attempt {attempt}"


def spans(life: Life, now: datetime) -> list[Span]:
    """Return the phases of a life that took time; the last one of a life that goes on ends now."""
    ends = [*(step.at for step in life.steps[1:]), now]
    found = [Span(PHASES[step.status], step.at, max(step.at, end)) for step, end in zip(life.steps, ends, strict=True)]
    return [span for span in found if span.phase not in ENDS]


def spent(life: Life, phase: Phase, now: datetime) -> float | None:
    """Return the seconds a request spent in a phase; None where it never was in it."""
    lengths = [span.seconds for span in spans(life, now) if span.phase is phase]
    return sum(lengths) if lengths else None
