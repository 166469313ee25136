"""What is remembered of this process's cycles."""

import asyncio
import time

import pytest

from flows.record import Record
from flows.report import CycleReport, StageReport
from proposer.errors import EndpointDown, NotLeader
from proposer.reasons import Code, Reason
from proposer.snapshot import Outside

REASON = Reason(Code.SERVER_DOWN, "The server is away.", "Start it.")


async def _run(record: Record, report: CycleReport | None = None, *, dry_run: bool = False) -> None:
    filled = CycleReport()
    async with record.of(filled, dry_run):
        if report is not None:
            filled.stages, filled.failed, filled.outside = report.stages, report.failed, report.outside


async def test_a_cycle_with_a_failed_stage_failed_and_its_other_stages_succeeded() -> None:
    record = Record()
    away = Outside(oracle=None, node=None, server=None, errors={"server": "refused"})
    stages = {"A": StageReport(reasons=[REASON]), "B": StageReport(errors=["away"])}
    await _run(record, CycleReport(stages=stages, failed={"B": "away"}, outside=away))
    assert (record.succeeded, record.failed, record.error) == (0, 1, "B: away")
    assert (set(record.stage_succeeded_at), record.stage_failures) == ({"A"}, {"B": 1})
    assert (record.reasons, record.unread, record.server_answers) == ((REASON,), {"server": 1}, False)
    assert record.succeeded_at is None
    await _run(record, CycleReport(stages={"B": StageReport()}))
    assert (record.succeeded, record.failed, record.error, record.reasons) == (1, 1, "", ())
    assert record.succeeded_at == record.ended_at == pytest.approx(time.time(), abs=5)


async def test_a_cycle_that_breaks_off_failed() -> None:
    record = Record()
    with pytest.raises(EndpointDown):
        async with record.of(CycleReport(), dry_run=False):
            raise EndpointDown("the ledger is away")
    assert (record.failed, record.error, record.ended_at) == (1, "the ledger is away", None)


async def test_a_cycle_that_is_cancelled_is_no_success() -> None:
    record = Record()
    with pytest.raises(asyncio.CancelledError):
        async with record.of(CycleReport(), dry_run=False):
            raise asyncio.CancelledError
    assert (record.succeeded, record.failed, record.succeeded_at) == (0, 1, None)


async def test_a_dry_run_and_the_cycle_of_one_who_no_longer_leads_are_none() -> None:
    record = Record()
    await _run(record, dry_run=True)
    with pytest.raises(NotLeader):
        async with record.of(CycleReport(), dry_run=False):
            raise NotLeader("another leads")
    assert record == Record()


async def test_cycles_that_fail_one_after_the_other_are_a_reason() -> None:
    """One that succeeds begins anew; one that breaks off counts, and a dry run does not."""
    record = Record()
    failed = CycleReport(failed={"SubmitAggProofs": "the node is away"})
    await _run(record, failed)
    with pytest.raises(EndpointDown):
        async with record.of(CycleReport(), dry_run=False):
            raise EndpointDown("the ledger is away")
    await _run(record, failed, dry_run=True)
    assert record.failing(3) is None
    await _run(record, failed)
    reason = record.failing(3)
    assert reason is not None
    assert (reason.code, reason.facts["cycles"]) == (Code.CYCLES_FAIL, 3)
    assert "the last with: SubmitAggProofs: the node is away" in reason.sentence
    await _run(record)
    assert record.failing(1) is None
