"""Ledger to Prefect: one sub-flow run per proof request, its state kept equal to the ledger's.

One writer, off the critical path, one call at a time, each with a deadline. The ledger is the truth and Prefect its
projection: whatever was missed while Prefect's server was away is written when it is back, and nothing twice.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from math import inf
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import Task
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Pending

from blocks.ledger import Event, Mirrored
from flows.context import Proposer
from flows.prove import run_name, run_state, run_tags
from proposer.errors import ProposerError
from proposer.intents import Move
from proposer.requests import Failure, Status

log = logging.getLogger("proposer.mirror")

CALL_SECONDS = 2.0
"""For a call that something waits for."""
PATIENT_SECONDS = 10.0
"""For one of the mirror's own, which nothing waits for: a server that is slow after an outage answers all the same."""
CANCELLED_LOOK_SECONDS = 1.5
"""At least between two looks at what a person has cancelled."""
POLITE_SECONDS = 2.0
"""How long at most the mirror holds back for a cycle."""
BATCH = 50
PAGE = 200
PREFECT_AWAY = (httpx.HTTPError, PrefectHTTPStatusError, TimeoutError, OSError)

T = TypeVar("T")


async def within(call: Awaitable[T], seconds: float = CALL_SECONDS) -> T:
    """Give one call to Prefect's API its deadline."""
    async with asyncio.timeout(seconds):
        return await call


async def _patiently(call: Awaitable[T]) -> T:
    return await within(call, PATIENT_SECONDS)


class Mirror:
    """The one writer of the runs of `prove`."""

    def __init__(self, proposer: Proposer, client: PrefectClient) -> None:
        self._proposer = proposer
        self._client = client
        self._deployment: UUID | None = None
        self._looked_at = -inf

    async def run(self) -> None:
        """Mirror what changed, for ever; pause longer while Prefect's server is away."""
        pause = 0.5
        while True:
            try:
                busy = await self.catch_up()
                if time.monotonic() - self._looked_at >= CANCELLED_LOOK_SECONDS:
                    self._looked_at = time.monotonic()
                    await self.look_for_cancelled()
                pause = 0.1 if busy else min(pause * 1.5, 2.0)
            except PREFECT_AWAY as error:
                log.info("Prefect's server is away, its history is written later: %s", type(error).__name__)
                # one that is slow is back already
                pause = 1.0 if isinstance(error, TimeoutError) else min(max(pause, 1.0) * 2, 15.0)
            except ProposerError as error:
                log.warning("the mirror waits: %s", error)
                pause = min(max(pause, 1.0) * 2, 15.0)
            await asyncio.sleep(pause)

    async def catch_up(self) -> int:
        """Write the next requests whose story went on; return how many."""
        rows = await self._proposer.ledger.to_mirror(BATCH)
        for row in rows:
            await self._let_cycle_pass()
            await self._tell(row)
        return len(rows)

    async def _let_cycle_pass(self) -> None:
        """Tell nothing while a cycle runs: it waits for the same server, and settlement waits for it."""
        try:
            async with asyncio.timeout(POLITE_SECONDS), self._proposer.cycle_lock:
                pass
        except TimeoutError:
            pass  # a cycle that takes so long waits for something else

    async def look_for_cancelled(self) -> None:
        """Park the requests whose runs a person cancelled; tell the story of those anew that fell with their cycle."""
        # a run that is behind may have been cancelled before its request was taken up again
        open_runs = await self._proposer.ledger.open_runs(shown=True)
        if not open_runs:
            return
        by_run = {run: request for request, run in open_runs.items()}
        for some in _pages(list(by_run)):
            for run in await self._cancelled_of(some):
                await self._cancelled(by_run[str(run.id)], run)

    async def _cancelled_of(self, run_ids: Sequence[str]) -> list[FlowRun]:
        cancelled = FlowRunFilter(
            id=FlowRunFilterId(any_=[UUID(run) for run in run_ids]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])),
        )
        return await _patiently(self._client.read_flow_runs(flow_run_filter=cancelled))

    async def _cancelled(self, request_id: int, run: FlowRun) -> None:
        if await self._cycle_was_cancelled(run):
            async with self._proposer.write() as writer:
                await writer.new_story(request_id)
                await writer.note(request_id, "its cycle was cancelled in Prefect; the proof goes on in a new run")
            return
        request = await self._proposer.ledger.request(request_id)
        why = "cancelled in the Prefect UI"
        async with self._proposer.write() as writer:
            await writer.move(Move(request_id, request.status, Status.PARKED, why, Failure.CANCELLED_BY_OPERATOR))

    async def _cycle_was_cancelled(self, run: FlowRun) -> bool:
        if run.parent_task_run_id is None:
            return False
        try:
            task_run = await _patiently(self._client.read_task_run(run.parent_task_run_id))
            if task_run.flow_run_id is None:
                return False
            parent = await _patiently(self._client.read_flow_run(task_run.flow_run_id))
        except ObjectNotFound:
            return False
        return parent.state is not None and (parent.state.is_cancelled() or parent.state.is_cancelling())

    async def _tell(self, row: Mirrored) -> None:
        """Bring one request's run up to date: the run, its state, its log lines, then the ledger's note of it."""
        events = await self._proposer.ledger.events(row.request.id, after=row.mirrored_event)
        if row.run_id is not None and any(e.frm is Status.PARKED and e.to is Status.UNREQ for e in events):
            async with self._proposer.write() as writer:
                await writer.new_story(row.request.id)
            return
        run_id = UUID(row.run_id) if row.run_id else await self._create(row, events)
        try:
            for event in events:
                await self._show(run_id, event)
            await _patiently(self._client.create_logs([_log_line(run_id, event) for event in events]))
        except ObjectNotFound:
            # deleted in Prefect (by hand or by its vacuum): what is still under way gets a new run
            run_id = None
        async with self._proposer.write() as writer:
            await writer.mirrored(row.request.id, str(run_id) if run_id else None, events[-1].id if events else 0)

    async def _show(self, run_id: UUID, event: Event) -> None:
        """Set the state that an event led to; one that leads to the state shown already needs no call."""
        created_so = event.frm is None and event.to is Status.UNREQ
        if created_so or event.frm is event.to or event.to is Status.RELAYED:
            return
        state = run_state(event.to, event.failure, event.why)
        # the only way back, when the server was down; Prefect's rules do not know it
        back = event.to is Status.UNREQ
        await _patiently(self._client.set_flow_run_state(run_id, state, force=back))

    async def _create(self, row: Mirrored, events: Sequence[Event]) -> UUID:
        """Create the run, as a child of the cycle that planned the request where that cycle is known to Prefect."""
        request = row.request
        key = f"{self._proposer.ledger_id}-request-{request.id}-{row.story}"
        if self._deployment is None:
            deployment = await _patiently(self._client.read_deployment_by_name(f"prove/{self._proposer.name}"))
            self._deployment = deployment.id
        parent = await self._parent_task(row, key) if row.cycle_run_id and row.story == 0 else None
        run = await _patiently(
            self._client.create_flow_run_from_deployment(
                self._deployment,
                parameters={"request_id": request.id},
                name=run_name(request),
                tags=run_tags(request, self._proposer.name),
                idempotency_key=key,
                parent_task_run_id=parent,
                state=run_state(Status.UNREQ, None, events[0].why if events else ""),
            )
        )
        return run.id

    async def _parent_task(self, row: Mirrored, key: str) -> UUID | None:
        placeholder: Task[Any, Any] = Task(name=run_name(row.request), fn=_nothing)
        placeholder.task_key = "proposer.proof-request"
        try:
            task_run = await _patiently(
                self._client.create_task_run(
                    task=placeholder, flow_run_id=UUID(row.cycle_run_id), dynamic_key=key, state=Pending()
                )
            )
        except ObjectNotFound:
            return None
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:
                raise
            return None  # the cycle's run is gone: deleted by hand, or this is another database
        return task_run.id


def _pages(run_ids: Sequence[str]) -> list[Sequence[str]]:
    """Split what one API call would not take."""
    return [run_ids[i : i + PAGE] for i in range(0, len(run_ids), PAGE)]


def _nothing() -> None:
    """Stand for the work in the parent's graph; the work itself is the request's."""


def _log_line(run_id: UUID, event: Event) -> LogCreate:
    level = logging.WARNING if event.to in {Status.FAILED, Status.PARKED} else logging.INFO
    line = {"name": "proposer", "level": level, "message": f"{event.to.value}: {event.why}"}
    return LogCreate.model_validate(line | {"timestamp": event.at, "flow_run_id": run_id})
