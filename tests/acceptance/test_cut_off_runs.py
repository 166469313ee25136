"""Runs that ended while Prefect could not be told are closed when it answers, also over a connection made anew."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest_asyncio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from blocks.ledger import Ledger as LedgerBlock
from deployments.apply import WORK_POOL_TYPE
from deployments.runner import Runner, Runs
from flows.context import Proposer
from flows.cycle import propose_cycle
from flows.mirror import Mirror
from flows.prove import prove
from proposer.intents import Plan
from proposer.ranges import BlockRange
from proposer.requests import Kind, NewRequest
from tests.acceptance.helpers import Prefect
from tests.acceptance.prefect_servers import SessionServer
from tests.proposer.samples import OURS

NAME = "cut-off"


@pytest_asyncio.fixture
async def client(prefect_server: SessionServer, prefect: Prefect) -> AsyncIterator[PrefectClient]:
    """A client of the session's server, which has the proposer's work pool."""
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name=NAME, type=WORK_POOL_TYPE))
            yield client


async def _broken_off(error: Exception) -> "asyncio.Task[Any]":
    async def run() -> None:
        raise error

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    return task


async def test_a_run_whose_end_prefect_missed_is_closed_once_it_answers(client: PrefectClient) -> None:
    """One that Prefect heard of after all keeps its state; one that was deleted is forgotten."""
    flow_id = await client.create_flow(propose_cycle)
    deployment = await client.create_deployment(flow_id, name=NAME, work_pool_name=NAME)

    async def started() -> UUID:
        return (await client.create_flow_run_from_deployment(deployment, state=Running())).id

    lost, heard, deleted = [await started() for _ in range(3)]
    proposer, runs = cast("Proposer", SimpleNamespace(name=NAME, epoch=1)), Runs()
    before = Runner(proposer, client, runs)
    for run_id in (lost, heard, deleted):
        task = runs.running[run_id] = await _broken_off(ConnectionError("Prefect's server is away"))
        before._ended(run_id, task)
    await client.set_flow_run_state(heard, Completed(message="settled 1100"))
    await client.delete_flow_run(deleted)

    await Runner(proposer, client, runs).poll()

    assert runs == Runs()
    states = [(await client.read_flow_run(run_id)).state for run_id in (lost, heard)]
    assert [(state.type.value, state.message) for state in states if state] == [
        ("CRASHED", "Prefect was away when this run ended; the ledger has what it did"),
        ("COMPLETED", "settled 1100"),
    ]


async def test_a_request_whose_cycle_was_deleted_is_shown_without_it(
    client: PrefectClient, ledger: LedgerBlock, epoch: int
) -> None:
    """Deleted by hand, or Prefect's database is another one now: it holds up no other's story."""
    flow_id = await client.create_flow(prove)
    await client.create_deployment(flow_id, name=NAME, work_pool_name=NAME)
    gone = NewRequest(kind=Kind.RANGE, range=BlockRange(0, 10), attempt=1, commitments=OURS)
    async with ledger.write(epoch) as writer:
        await writer.apply(Plan(inserts=(gone,)), str(uuid4()))
        await writer.apply(Plan(inserts=(replace(gone, range=BlockRange(10, 20)),)))
    proposer = SimpleNamespace(
        name=NAME, ledger=ledger, ledger_id="tests", cycle_lock=asyncio.Lock(), write=lambda: ledger.write(epoch)
    )
    assert await Mirror(cast("Proposer", proposer), client).catch_up() == 2
    assert await ledger.to_mirror(10) == []
    runs = [await client.read_flow_run(UUID(run)) for run in (await ledger.open_runs()).values()]
    assert [(run.parent_task_run_id, run.state_name) for run in runs] == [(None, "Unrequested")] * 2
