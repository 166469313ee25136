"""What an explanation is made of: a snapshot, what it allows and decides, who leads, and what only asking L1 shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from proposer.intents import Plan, Requests, Submission
from proposer.permission import Permission
from proposer.plan_aggregation import plan_aggregation
from proposer.plan_ranges import plan_ranges
from proposer.plan_requests import plan_requests
from proposer.plan_submission import plan_submission
from proposer.polling import Usual
from proposer.reasons import Code, Reason, Severity
from proposer.requests import Kind
from proposer.snapshot import Snapshot

_FIRST = (Severity.CRITICAL, Severity.WARNING, Severity.WAITING)


@dataclass(frozen=True, slots=True)
class Leader:
    """The process that holds the leadership, or held it last until `until`, by the database's clock."""

    owner: str
    epoch: int
    since: datetime
    until: datetime
    leads: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """What a cycle would decide now, stage by stage."""

    ranges: Plan
    aggregation: Plan
    requests: Requests
    submission: Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything an explanation draws from; read, never written."""

    snapshot: Snapshot
    allowed: Permission
    leader: Leader | None
    decided: Decided
    stopped: Mapping[int, Reason] = field(default_factory=dict[int, Reason])
    """By request: what keeps its next transaction from being sent, as far as asking L1 and the node shows it."""
    stuck: Mapping[int, Reason] = field(default_factory=dict[int, Reason])
    """By nonce: why a transaction that was sent is not mined."""
    usual: Mapping[Kind, Usual] = field(default_factory=dict[Kind, Usual])

    def reasons(self) -> list[Reason]:
        """Every active reason once, the most severe first."""
        decided = self.decided
        found = [
            *no_leader(self.leader),
            *self.allowed.reasons,
            *decided.ranges.reasons,
            *decided.aggregation.reasons,
            *decided.requests.reasons,
            *decided.submission.reasons,
            *self.stopped.values(),
            *self.stuck.values(),
        ]
        once: dict[tuple[Code, int | float | str], Reason] = {}
        for reason in found:
            once.setdefault((reason.code, reason.facts.get("request", reason.sentence)), reason)
        return sorted(once.values(), key=lambda r: _FIRST.index(r.severity))

    def reason(self, *codes: Code) -> Reason | None:
        """Return the first active reason of one of these codes, in the order of the codes."""
        active = self.reasons()
        return next((r for code in codes for r in active if r.code is code), None)


def decide(snapshot: Snapshot, allowed: Permission) -> Decided:
    """Make every decision of a cycle, without acting on any."""
    return Decided(
        plan_ranges(snapshot, allowed.may_request),
        plan_aggregation(snapshot, allowed.may_request),
        plan_requests(snapshot, allowed.may_request),
        plan_submission(snapshot, allowed.may_submit),
    )


def no_leader(leader: Leader | None) -> Iterable[Reason]:
    """Say that nothing is done because no process leads."""
    if leader is not None and leader.leads:
        return
    last = f" {leader.owner} led until {leader.until:%Y-%m-%d %H:%M:%S} UTC." if leader is not None else ""
    facts: Mapping[str, str] = {"last": leader.owner} if leader is not None else {}
    yield Reason(
        Code.NO_LEADER,
        f"No proposer process leads, so nothing is asked for or sent.{last}",
        "Start one: proposer up. If one runs, look at its log: it may not reach the ledger's database.",
        facts,
    )


def about(reasons: Sequence[Reason], request: int) -> Reason | None:
    """Return the reason that speaks of this request."""
    return next((r for r in reasons if r.facts.get("request") == request), None)
