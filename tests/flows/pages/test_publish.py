"""When the pages are written, what a cycle pays for it, and that nothing waits for them."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from sqlalchemy import event

from flows.context import Page, Proposer
from flows.pages import publish as publishing
from flows.pages.publish import REDRAW_SECONDS, STALE_SECONDS, artifact_key, pages_to_write, publish
from infra.devnet import Devnet
from proposer.requests import Status
from tests.flows.conftest import MakeProposer, answered, cycle, every_request, until, with_status


async def written(proposer: Proposer, report: Any, seconds_ago: float = 0.0) -> list[str]:
    """Take what is to be written as written so long ago; return the pages' names."""
    writes = await pages_to_write(proposer, report)
    then = time.monotonic() - seconds_ago
    for write in writes:
        proposer.pages[write.page] = Page(uuid4(), write.mark, then, then)
    return [write.page for write in writes]


async def test_every_page_is_written_once_and_again_when_it_changed(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """The pictures of what moves all the time are not redrawn at every step of it."""
    proposer = await make_proposer(devnet)
    assert await written(proposer, await cycle(proposer)) == ["status", "timeline", "cost"]
    await answered(proposer)
    async with proposer.write() as writer:
        await writer.note((await every_request(proposer))[0].id, "something happened")
    report = await cycle(proposer)
    assert await written(proposer, report, REDRAW_SECONDS) == ["status"]
    for name in ("timeline", "cost"):
        page = proposer.pages[name]
        proposer.pages[name] = Page(page.artifact, page.mark, page.begun_at, page.written_at - REDRAW_SECONDS)
    assert await written(proposer, report) == ["timeline", "cost"]


async def test_the_pages_of_a_settled_output_say_so(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)

    async def settled() -> bool:
        return await devnet.latest_block_number() >= 1100 and len(await with_status(proposer, Status.RELAYED)) == 3

    await until(proposer, settled)
    pages = {write.page: write.text for write in await pages_to_write(proposer, await cycle(proposer))}
    assert "| Contract head | L2 block 1100 |" in pages["status"]
    assert "**Cause: waiting-for-finality.**" in pages["status"]
    assert "Outputs settled: 1100." in pages["timeline"]
    assert "| **both** | **3** | **3** | **0** | **0** | **0** |" in pages["cost"]
    secrets = (devnet.proposer_key.removeprefix("0x"), devnet.l1_rpc, devnet.node_rpc, devnet.prover_url)
    assert [secret for secret in secrets for text in pages.values() if secret in text] == []


async def test_a_cycle_in_which_nothing_happened_costs_one_query(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet)
    await cycle(proposer)
    await answered(proposer)
    report = await cycle(proposer)
    await written(proposer, report)
    asked: list[str] = []
    engine = proposer.ledger.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    assert await written(proposer, report) == []
    assert [statement for statement in asked if "FROM request_events" in statement] == asked
    assert len(asked) == 1


async def test_a_status_that_does_not_change_is_told_again_after_its_time(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    proposer = await make_proposer(devnet)
    report = await cycle(proposer)
    await answered(proposer)
    await written(proposer, report, STALE_SECONDS + 1)
    assert await written(proposer, report) == ["status", "timeline"]


async def test_what_is_looked_at_while_l1_is_away_says_so(devnet: Devnet, make_proposer: MakeProposer) -> None:
    proposer = await make_proposer(devnet, l1_rpc="http://127.0.0.1:9")
    pages = {write.page: write.text for write in await pages_to_write(proposer, await cycle(proposer))}
    assert pages["status"].startswith("**Warning: l1-down**")
    assert "127.0.0.1:9" in pages["status"], "a redacted address names its host"


async def test_pages_that_cannot_be_written_delay_and_fail_nothing(
    devnet: Devnet, make_proposer: MakeProposer, caplog: pytest.LogCaptureFixture
) -> None:
    """They are due again, and while one round is under way no second one begins."""
    proposer = await make_proposer(devnet)
    report = await cycle(proposer)
    away = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(away), caplog.at_level("INFO", logger="proposer.pages"):
        publish(proposer, report, str(uuid4()))
        first = proposer.publishing
        assert first is not None
        assert not first.done()
        publish(proposer, report, str(uuid4()))
        assert proposer.publishing is first
        await first
    assert "the pages in Prefect are written after a later cycle" in caplog.text
    assert proposer.pages == {}


async def test_a_prefect_that_hangs_is_given_up(
    devnet: Devnet, make_proposer: MakeProposer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publishing, "SECONDS", 0.5)
    proposer = await make_proposer(devnet)
    report = await cycle(proposer)
    hanging = await _hanging()
    try:
        address = "http://{}:{}/api".format(*hanging.sockets[0].getsockname())
        with temporary_settings({PREFECT_API_URL: address}), caplog.at_level("INFO", logger="proposer.pages"):
            publish(proposer, report, str(uuid4()))
            assert proposer.publishing is not None
            await proposer.publishing
    finally:
        hanging.close()
    assert "later cycle: TimeoutError" in caplog.text


async def _hanging() -> Any:
    """A server that takes connections and never says a word."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    return await asyncio.start_server(silence, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("name", "key"),
    [("proposer", "proposer-status"), ("OP Mainnet_2", "op-mainnet-2-status"), ("-x-", "x-status")],
)
def test_the_key_is_one_that_prefect_takes(name: str, key: str) -> None:
    assert artifact_key(name, "status") == key
