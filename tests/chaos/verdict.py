"""What a chaos run came to: a table for people, one JSON object, and whether every promise was kept."""

import os
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from infra.devnet import Report
from tests.chaos.kills import Recovery
from tests.chaos.points import POINTS

RECOVERY_LIMIT_SECONDS = 15.0


@dataclass(kw_only=True)
class Verdict:
    """A run's counts and violations."""

    seed: int
    asked: int
    kills: dict[str, list[Recovery]] = field(default_factory=lambda: defaultdict(list))
    stops: list[Recovery] = field(default_factory=list[Recovery])
    standby_kills: int = 0
    applied: Counter[str] = field(default_factory=Counter[str])
    taken_up_by_hand: int = 0
    restarts: list[str] = field(default_factory=list[str])
    report: Report = field(default_factory=Report)
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list[str])
    """What went wrong that the checker cannot see: a stall, an unclean end."""

    @property
    def recoveries(self) -> list[Recovery]:
        """Every takeover after a kill."""
        return [recovery for recoveries in self.kills.values() for recovery in recoveries]

    @property
    def violations(self) -> list[str]:
        """Every promise that was not kept, a sentence each."""
        found = [*self.broken, *self.report.violations]
        if len(self.recoveries) < self.asked:
            found.append(f"{len(self.recoveries)} kills instead of {self.asked}")
        found += [
            f"{each.what}: the other one worked after {each.seconds:.1f} s (epoch {each.epoch}, "
            f"load average {each.load:.1f} on {os.cpu_count()} CPUs)"
            for each in [*self.recoveries, *self.stops]
            if each.seconds >= RECOVERY_LIMIT_SECONDS
        ]
        missing = [str(point) for point in POINTS if str(point) not in self.kills]
        if missing and self.asked >= 2 * len(POINTS):
            found.append(f"places without a kill: {', '.join(missing)}")
        return found

    def summary(self) -> dict[str, Any]:
        """Return the last line's object."""
        seconds = [each.seconds for each in self.recoveries]
        report = self.report
        return {
            "kills": len(seconds),
            "stops": len(self.stops),
            "faults_injected": self.applied.total(),
            "outputs_settled": report.outputs_settled,
            "proofs_paid": report.proof_requests,
            "proofs_lost": report.proofs_lost,
            "outcome_unknown": report.unknown_outcomes,
            "proofs_paid_twice": report.proofs_paid_twice,
            "duplicate_transactions": report.duplicate_transactions,
            "reverted_transactions": report.reverted_transactions,
            "lost_races": report.lost_races,
            "max_seconds_to_recover": round(max(seconds, default=0.0), 1),
            "median_seconds_to_recover": round(statistics.median(seconds), 1) if seconds else 0.0,
            "taken_up_by_hand": self.taken_up_by_hand,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
        }

    def table(self) -> str:
        """Return what a person wants to see, without a newline at the end."""
        rows = [(place, len(each), max(r.seconds for r in each)) for place, each in self.kills.items()]
        rows += [("SIGSTOP", len(self.stops), max(r.seconds for r in self.stops))] if self.stops else []
        width = max((len(place) for place, _, _ in rows), default=5)
        lines = [f"{'killed at'.ljust(width)}  kills  worst recovery"]
        lines += [f"{place.ljust(width)}  {count:5}  {worst:12.1f} s" for place, count, worst in sorted(rows)]
        lines.append(f"kills of the standby: {self.standby_kills}")
        lines.append("faults: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self.applied.items())))
        lines += [f"restarted by the supervisor: {each}" for each in self.restarts]
        lines += [f"lost race: {each}" for each in self.report.lost_races]
        lines += [f"VIOLATION: {each}" for each in self.violations]
        return "\n".join(lines)
