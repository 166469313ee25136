"""`propose-cycle`: the scheduled parent flow. Six stages in order, each failing alone."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed
from pydantic import Field

from flows.context import Cycle, Proposer, current
from flows.facts import l2_block_time, lag
from flows.report import CycleReport, StageReport
from flows.retries import READ_RETRIES
from flows.stages import aggregations, observe, proving, ranges, requests, submission, witnesses
from proposer.errors import ProposerError
from proposer.permission import permission
from proposer.reasons import Severity
from proposer.settings import ProposerSettings

log = logging.getLogger("proposer.cycle")

Stage = Callable[[Cycle], Awaitable[StageReport]]
RunStage = Callable[[str, Stage, Cycle], Awaitable[StageReport]]
T = TypeVar("T")


async def _polls(cycle: Cycle) -> StageReport:
    """Look at the requests that are being proven."""
    if not cycle.dry_run:
        return StageReport(await proving.look(cycle.proposer))
    due = await cycle.proposer.ledger.due_for_a_look()
    return StageReport([f"would ask for the status of {request}" for request in due])


STAGES: dict[str, Stage] = {
    "GetRangeProofBoundaries": ranges.plan,
    "ProcessProvingRequests": _polls,
    "ProcessWitnessgenRequests": witnesses.recover,
    "DeriveAggProofs": aggregations.derive,
    "RequestQueuedProofs": requests.request_queued,
    "SubmitAggProofs": submission.submit,
}


async def _validate(cycle: Cycle) -> StageReport:
    """Say what stage 0 allows."""
    return StageReport(reasons=cycle.permission.reasons)


async def run_stages(
    proposer: Proposer,
    run_stage: RunStage,
    read: observe.Read,
    *,
    settings: ProposerSettings | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> CycleReport:
    """Observe, then run every stage, whatever becomes of the others. Cycles of one process run one after another."""
    report = CycleReport()
    async with proposer.cycle_lock, proposer.record.of(report, dry_run):
        if not dry_run:
            proposer.last_cycle_at = time.monotonic()
        outside = report.outside = await observe.observe(proposer, read)
        if not dry_run:
            proposer.last_server = outside.server
            await observe.remember(proposer, outside)
        cycle = Cycle(
            proposer=proposer,
            settings=settings or proposer.settings,
            outside=outside,
            permission=permission(outside, proposer.settings.min_balance, await proposer.ledger.paused()),
            run_id=run_id,
            dry_run=dry_run,
        )
        for name, stage in {"ValidateConfig": _validate, **STAGES}.items():
            try:
                report.stages[name] = await run_stage(name, stage, cycle)
            except ProposerError as error:
                report.failed[name] = str(error)
            else:
                if errors := report.stages[name].errors:
                    report.failed[name] = "; ".join(errors)
    return report


async def call(name: str, stage: Stage, cycle: Cycle) -> StageReport:
    """Run a stage as a plain function: what the process does while Prefect is away."""
    del name
    return await stage(cycle)


async def as_task(name: str, stage: Stage, cycle: Cycle) -> StageReport:
    """Run a stage as a Prefect task with its story in the task's log. Stages act, so they are never retried blindly."""

    @task(name=name, cache_policy=NO_CACHE, retries=0)
    async def run() -> State[Any] | None:
        started = time.monotonic()
        result = await stage(cycle)
        results.append(result)
        logger = get_run_logger()
        for sentence in result.did:
            logger.info("%s%s", "dry run: " if cycle.dry_run else "", sentence)
        for one in result.would:
            logger.info("dry run: %s", one)
        for reason in result.reasons:
            level = logging.INFO if reason.severity is Severity.WAITING else logging.WARNING
            logger.log(level, "%s: %s", reason.code.value, reason)
        logger.debug("%s took %.3f s", name, time.monotonic() - started)
        if result.errors:
            return Failed(message="; ".join(result.errors)[:500])
        return Completed(message="; ".join(result.did)[:500]) if result.did else None

    results: list[StageReport] = []
    state: State[Any] = await run(return_state=True)  # pyright: ignore[reportGeneralTypeIssues] - Prefect's overload
    if not results:
        await state.aresult()  # raises what the stage raised
    return results[0]


async def read_as_task(name: str, look: Callable[[], Awaitable[T]]) -> T:
    """Read an endpoint as a Prefect task: retried twice where the endpoint is down, for a read costs nothing."""

    @task(
        name=name,
        cache_policy=NO_CACHE,
        **READ_RETRIES,
    )
    async def read() -> None:
        results.append(await look())

    results: list[T] = []
    await read()
    return results[-1]


Cap = Annotated[int | None, Field(ge=1)]


@flow(name="propose-cycle", flow_run_name="cycle", validate_parameters=True, persist_result=False)
async def propose_cycle(
    dry_run: bool = False, max_concurrent_witness_gen: Cap = None, max_concurrent_proof_requests: Cap = None
) -> State[Any]:
    """Run one cycle: plan ranges, look at proofs, aggregate, request, propose.

    Ends Completed, or Failed naming the stages that failed; a stage that fails does not stop the others.

    Args:
        dry_run: Make and show every decision; request, send and write nothing.
        max_concurrent_witness_gen: Range requests in witness generation, for this cycle instead of the configured cap.
        max_concurrent_proof_requests: Range requests in flight, for this cycle instead of the configured cap.

    """
    proposer = current()
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    report = await run_stages(
        proposer,
        as_task,
        read_as_task,
        settings=_capped(proposer.settings, max_concurrent_witness_gen, max_concurrent_proof_requests),
        run_id=str(run.id) if run else None,
        dry_run=dry_run,
    )
    if run is not None and report.did:
        await _rename(run.id, f"{'dry run' if dry_run else 'cycle'} · {report.headline}")
    if report.failed:
        return Failed(message="; ".join(f"{name}: {text}" for name, text in report.failed.items()))
    reasons = "; ".join([await _lag(proposer, report), *(reason.sentence for reason in report.reasons)])
    if not report.did:
        return Completed(name="Idle", message=reasons[:1000])
    return Completed(message="; ".join([*report.did, reasons])[:1000])


async def _lag(proposer: Proposer, report: CycleReport) -> str:
    """Say how far behind the rollup is; L1 being away costs the time, not the cycle."""
    if report.outside is None:
        return "the lag is not known"
    try:
        seconds = await l2_block_time(await proposer.l1.chain_id(), proposer.oracle.address)
    except ProposerError:
        seconds = None
    return lag(report.outside, seconds)


def _capped(settings: ProposerSettings, witnesses_cap: int | None, requests_cap: int | None) -> ProposerSettings:
    requests_at_most = requests_cap or settings.max_proof_requests
    return settings.model_copy(
        update={
            "max_proof_requests": requests_at_most,
            "max_witness_gen": min(witnesses_cap or settings.max_witness_gen, requests_at_most),
        }
    )


async def _rename(run_id: UUID, name: str) -> None:
    """Name the run after what it did, so that the list of runs reads as a story."""
    async with get_client() as client:
        await client.update_flow_run(run_id, name=name[:200])
