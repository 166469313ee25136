"""What became of this process's cycles, for metrics and health; times in unix seconds."""

import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from flows.report import CycleReport
from proposer.errors import NotLeader, ProposerError
from proposer.reasons import Code, Reason
from proposer.snapshot import Outside


@dataclass
class Record:
    """Cycles of this process since it started; a dry run is none."""

    succeeded: int = 0
    failed: int = 0
    stage_failures: Counter[str] = field(default_factory=Counter[str])
    stage_succeeded_at: dict[str, float] = field(default_factory=dict[str, float])
    unread: Counter[str] = field(default_factory=Counter[str])
    """How often a cycle could not read an endpoint: `l1`, `node`, `server`."""
    ended_at: float | None = None
    """When the last one that did not break off ended; what is said of it below is as old."""
    succeeded_at: float | None = None
    seconds: float | None = None
    """How long the last one took."""
    reasons: tuple[Reason, ...] = ()
    """Why the last one did no more."""
    server_answers: bool | None = None
    """Whether the prover server answered the last one."""
    error: str = ""
    """Why the last one failed."""
    failed_in_a_row: int = 0
    outside: Outside | None = None
    """What the last one that did not break off saw."""
    incidents: deque[Reason] = field(default_factory=lambda: deque[Reason](maxlen=20))
    """What happened, in cycles and between them, and was not told as an alert yet; the newest."""

    def failing(self, most: int) -> Reason | None:
        """Say that as many cycles have failed, one after the other."""
        if self.failed_in_a_row < most:
            return None
        return Reason(
            Code.CYCLES_FAIL,
            f"{self.failed_in_a_row} cycles have failed in a row, the last with: {self.error[:500]}",
            "Open the last runs of propose-cycle in the Prefect UI, or the log of the process: each failed stage has "
            "its error. The other stages go on.",
            {"cycles": self.failed_in_a_row},
        )

    @asynccontextmanager
    async def of(self, report: CycleReport, dry_run: bool) -> AsyncIterator[None]:
        """Record a cycle that fills in this report, also one that breaks off."""
        started, broken = time.monotonic(), "it was cancelled, or broke off with a defect"
        try:
            yield
            broken = ""
        except NotLeader:
            dry_run = True  # the other process's cycles count
            raise
        except ProposerError as error:
            broken = str(error)
            raise
        finally:
            if not dry_run:
                self.seconds = time.monotonic() - started
                self._add(report, broken)

    def _add(self, report: CycleReport, broken: str) -> None:
        now = time.time()
        self.error = broken or "; ".join(f"{name}: {text}" for name, text in report.failed.items())
        self.stage_failures.update(list(report.failed))
        self.stage_succeeded_at |= {name: now for name in report.stages if name not in report.failed}
        if report.outside is not None:
            self.unread.update(list(report.outside.errors))
        if not broken:
            self.ended_at, self.reasons, self.outside = now, tuple(report.reasons), report.outside
            self.server_answers = report.outside is not None and "server" not in report.outside.errors
        if self.error:
            self.failed += 1
            self.failed_in_a_row += 1
        else:
            self.succeeded += 1
            self.failed_in_a_row = 0
            self.succeeded_at = now
