"""Stage 3, ProcessWitnessgenRequests: requests in witness generation that nobody waits for any more.

A request sent by this process is held by one of its tasks, which ends it at its deadline. What is left over was sent
by a process that died: its answer is lost and it may have been paid, so it waits out `WITNESS_GEN_TIMEOUT` before it
is asked again, at most once for that reason.
"""

from datetime import timedelta

from flows.context import Cycle
from flows.report import StageReport
from proposer.reasons import Code, Reason
from proposer.requests import Failure, ProofRequest, Status
from proposer.retry import successors


async def recover(cycle: Cycle) -> StageReport:
    """Fail requests whose answer can no longer come."""
    proposer = cycle.proposer
    snapshot = await cycle.snapshot()
    orphans = [r for r in snapshot.requests if r.status is Status.WITNESSGEN and r.id not in proposer.witnesses]
    report = StageReport()
    timeout = timedelta(seconds=proposer.settings.witness_gen_timeout)
    waiting: list[Reason] = []
    for request in orphans:
        if snapshot.now - request.since < timeout:
            waiting.append(_waits(request, timeout - (snapshot.now - request.since)))
            continue
        cut = "the connection was cut" if request.claimed_epoch == proposer.epoch else "the process that asked ended"
        text = f"{cut} before the server's answer: it may have been paid"
        report.did.append(f"{'would end as ' if cycle.dry_run else ''}{Failure.OUTCOME_UNKNOWN.value}: {request}")
        if not cycle.dry_run:
            follow = successors(request, Failure.OUTCOME_UNKNOWN, proposer.settings.retry_policy, snapshot.now)
            async with proposer.write() as writer:
                await writer.fail(request, Failure.OUTCOME_UNKNOWN, text, follow, poll=False)
    report.reasons = waiting
    return report


def _waits(request: ProofRequest, left: timedelta) -> Reason:
    return Reason(
        Code.BACKING_OFF,
        f"{request} was sent, and the server's answer was lost: it may have been paid.",
        f"It is asked again in {left.total_seconds():.0f} s (WITNESS_GEN_TIMEOUT), at most once for this reason.",
        {"request": request.id},
    )
