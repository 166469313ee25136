"""Run Prefect's runs inside this process: scheduled and manual cycles, and requests taken up by hand.

An async flow in this event loop costs 0.2 s; a process per run costs seconds and 100 MB. The runs come from a work
pool of the proposer's own type, so that no other worker takes one away. `run_flow_async` and `propose_state` are not
documented by Prefect: its version is pinned, and tests drive both.
"""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.exceptions import Abort, ObjectNotFound
from prefect.filesystems import LocalFileSystem
from prefect.flow_engine import run_flow_async
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Completed, Crashed, Pending
from prefect.utilities.engine import propose_state

from flows.context import CURRENT, Proposer
from flows.cycle import propose_cycle
from flows.mirror import within
from flows.prove import is_of_a_request, prove

log = logging.getLogger("proposer.runner")

WAKE_TAG = "woken"
SKIPPED_AT_ONCE = 10
"""Overdue cycles closed in one poll: after an outage there are hundreds, and the newest must not wait for them."""


def query_seconds() -> float:
    """Return how often to ask for due runs. Wake-ups do not wait for it: a run by hand or by the schedule does."""
    return get_current_settings().worker.query_seconds


@dataclass(frozen=True, slots=True)
class Runs:
    """A process's runs by id; they go on while its connection to Prefect is made anew."""

    running: "dict[UUID, asyncio.Task[Any]]" = field(default_factory=dict[UUID, "asyncio.Task[Any]"])
    cut_off: set[UUID] = field(default_factory=set[UUID])
    """Runs that have ended here while Prefect could not be told."""
    client: AsyncClientContext = field(default_factory=AsyncClientContext, compare=False)
    sync_client: SyncClientContext = field(default_factory=SyncClientContext, compare=False)
    """Of all runs: Prefect makes new ones for each and reads the certificates anew, which holds up the process."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the clients of the runs; nothing is sent by that."""
        async with self.client.client:
            with self.sync_client.client:
                yield


class Runner:
    """Takes due runs of `propose-cycle` and `prove` from Prefect and executes them here."""

    def __init__(self, proposer: Proposer, client: PrefectClient, runs: Runs) -> None:
        self._proposer = proposer
        self._client = client
        self._deployments: dict[UUID, Flow[..., Any]] = {}
        self._runs, self._running, self._cut_off = runs, runs.running, runs.cut_off
        # no earlier process has used this key, so the first wake-up is not taken for one of its
        self._last_cycle = f"start-{proposer.epoch}"
        self._heartbeat_at = 0.0

    async def attach(self) -> None:
        """Find the deployments, and close the runs that an earlier process left behind."""
        for flow in (propose_cycle, prove):
            name = f"{flow.name}/{self._proposer.name}"
            deployment = await within(self._client.read_deployment_by_name(name))
            # what the engine would ask Prefect's server for, twice a cycle and holding up the whole process meanwhile
            flow.result_storage = LocalFileSystem(basepath=str(get_current_settings().results.local_storage_path))
            self._deployments[deployment.id] = flow
        mirrored = set((await self._proposer.ledger.open_runs()).values())
        for run in await self._runs_in(StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
            ours = run.id in self._running or str(run.id) in mirrored or is_of_a_request(run.tags)
            if not ours:
                await self._crashed(run.id, "the proposer process ended during this run; the ledger has what it did")

    async def poll(self) -> bool:
        """Start what is due; return whether a cycle was started.

        Of several due cycles that are alike the newest runs; the others end as skipped.
        """
        await self._beat()
        await self._close_cut_off()
        responses = await within(
            self._client.get_scheduled_flow_runs_for_work_pool(self._proposer.name, scheduled_before=datetime.now(UTC))
        )
        due = [r.flow_run for r in responses if r.flow_run.id not in self._running]
        by_hand = [r for r in due if not _is_routine(r) or self._flow_of(r) is prove]
        routine = sorted((r for r in due if r not in by_hand), key=lambda r: r.expected_start_time or datetime.now(UTC))
        for run in [*by_hand, *routine[-1:]]:
            await self._start(run)
        for run in routine[:-1][-SKIPPED_AT_ONCE:]:
            skipped = Completed(name="Skipped", message="a later cycle runs in its place")
            await within(self._client.set_flow_run_state(run.id, skipped))
        await self._cancel_followers()
        return any(self._flow_of(run) is propose_cycle for run in [*by_hand, *routine])

    async def wake(self, why: str) -> None:
        """Create a cycle and start it. At most one is pending: its key is the cycle started last."""
        cycle = next(i for i, flow in self._deployments.items() if flow is propose_cycle)
        run = await within(
            self._client.create_flow_run_from_deployment(
                cycle,
                name=f"cycle · {why}",
                tags=[WAKE_TAG],
                idempotency_key=f"{self._proposer.ledger_id}-after-{self._last_cycle}",
                state=Pending(message=why),  # a scheduled one would have to be asked for, which takes two calls more
            )
        )
        if run.id not in self._running and run.state is not None and run.state.is_pending():
            self._execute(run, propose_cycle)

    async def drain(self) -> None:
        """Wait for the cycle that is running; stop following requests by hand."""
        for task in self._running.values():
            if task.get_name().startswith("prove"):
                task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _flow_of(self, run: FlowRun) -> Flow[..., Any] | None:
        return self._deployments.get(run.deployment_id) if run.deployment_id else None

    async def _start(self, run: FlowRun) -> None:
        flow = self._flow_of(run)
        if flow is None:
            return
        try:
            async with asyncio.timeout(10):
                state = await propose_state(self._client, Pending(), flow_run_id=run.id)
        except Abort:
            return
        if state.is_pending():
            self._execute(run, flow)

    def _execute(self, run: FlowRun, flow: Flow[..., Any]) -> None:
        if flow is propose_cycle:
            self._last_cycle = str(run.id)
        context = contextvars.Context()
        context.run(CURRENT.set, self._proposer)
        context.run(AsyncClientContext.__var__.set, self._runs.client)
        context.run(SyncClientContext.__var__.set, self._runs.sync_client)
        # The engine watches a deployment's run for suspension from a thread of its own, and this event loop waits for
        # that thread's websocket; a cycle is over before anybody could suspend it.
        run = run.model_copy(update={"deployment_id": None})
        execution = run_flow_async(flow=flow, flow_run=run, parameters=run.parameters, return_type="state")
        task = asyncio.get_running_loop().create_task(execution, name=f"{flow.name} {run.id}", context=context)
        self._running[run.id] = task
        task.add_done_callback(lambda done: self._ended(run.id, done))

    def _ended(self, run_id: UUID, task: "asyncio.Task[Any]") -> None:
        self._running.pop(run_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s could not be recorded to its end: %r", task.get_name(), error)
            self._cut_off.add(run_id)

    async def _close_cut_off(self) -> None:
        """End the runs in Prefect whose end it has missed; one that it heard of after all keeps it."""
        for run_id in list(self._cut_off):
            try:
                run = await within(self._client.read_flow_run(run_id))
                if run.state is None or not run.state.is_final():
                    await self._crashed(run_id, "Prefect was away when this run ended; the ledger has what it did")
            except ObjectNotFound:
                pass  # deleted in Prefect meanwhile
            self._cut_off.discard(run_id)

    async def _crashed(self, run_id: UUID, message: str) -> None:
        await within(self._client.set_flow_run_state(run_id, Crashed(message=message), force=True))

    async def _cancel_followers(self) -> None:
        """Stop following a request by hand where the person cancelled that run."""
        followers = [i for i, task in self._running.items() if task.get_name().startswith("prove")]
        if not followers:
            return
        for run in await self._runs_in(StateType.CANCELLING, only=followers):
            task = self._running.get(run.id)
            if task is None:
                continue  # it has ended meanwhile
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            stopped = Cancelled(message="no longer followed; the request itself goes on")
            await within(self._client.set_flow_run_state(run.id, stopped, force=True))

    async def _runs_in(self, *types: StateType, only: Sequence[UUID] | None = None) -> list[FlowRun]:
        return await within(
            self._client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    id=FlowRunFilterId(any_=list(only)) if only else None,
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
                ),
                deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=list(self._deployments))),
            )
        )

    async def _beat(self) -> None:
        """Show in the UI that the work pool is served."""
        now = asyncio.get_running_loop().time()
        if now - self._heartbeat_at >= 30:
            self._heartbeat_at = now
            await within(
                self._client.send_worker_heartbeat(
                    self._proposer.name, f"proposer {self._proposer.name}", heartbeat_interval_seconds=30
                )
            )


def _is_routine(run: FlowRun) -> bool:
    """Whether nobody started this run by hand."""
    return run.auto_scheduled or WAKE_TAG in run.tags
