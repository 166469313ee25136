"""Pages as artifacts of a real Prefect server: versions under one key, written over, and made anew when deleted."""

from dataclasses import replace
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks.l1 import L1Chain
from blocks.ledger import Ledger
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from flows.context import Proposer
from flows.pages.publish import RENEW_SECONDS, Write, put
from proposer.settings import ProposerSettings
from tests.acceptance.helpers import Prefect, Row
from tests.acceptance.prefect_servers import SessionServer

NOWHERE = SecretStr("http://127.0.0.1:9")


async def test_a_page_is_written_over_until_its_hour_is_full_and_made_anew_when_deleted(
    prefect_server: SessionServer, prefect: Prefect, ledger: Ledger
) -> None:
    """The newest version is what the UI shows under the key; the status is a new version each time."""
    proposer = Proposer(
        name=f"pages-{uuid4().hex[:8]}",
        settings=ProposerSettings(),
        ledger=ledger,
        ledger_id="",
        l1=L1Chain(urls=NOWHERE),
        oracle=L2OutputOracle(address="0x" + "11" * 20),
        node=OpNode(urls=NOWHERE),
        server=SuccinctServer(url=NOWHERE),
        signer=None,
        epoch=1,
        still_leads=lambda: True,
    )

    async def versions(page: str) -> list[str]:
        """What the versions of a page say, the oldest first; its newest is the one shown under the key."""
        key = {"artifacts": {"key": {"any_": [f"{proposer.name}-{page}"]}}}
        found: list[Row] = sorted(await prefect.all("/artifacts/filter", key), key=lambda row: row["created"])
        (shown,) = await prefect.all("/artifacts/latest/filter", key)
        assert (shown["data"], shown["latest_id"]) == (found[-1]["data"], found[-1]["id"])
        assert {row["type"] for row in found} == {"markdown"}
        return [row["data"] for row in found]

    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        async with get_client() as client:

            async def say(page: str, text: str, *, over: bool = True) -> None:
                await put(proposer, client, Write(page, text, text, over), uuid4())
                assert proposer.pages[page].mark == text

            for text in ("one", "two"):
                await say("timeline", text)
                await say("status", text, over=False)
            assert await versions("timeline") == ["two"]
            assert await versions("status") == ["one", "two"]

            page = proposer.pages["timeline"]
            proposer.pages["timeline"] = replace(page, begun_at=page.begun_at - RENEW_SECONDS)
            await say("timeline", "three")
            assert await versions("timeline") == ["two", "three"]

            await client.delete_artifact(proposer.pages["timeline"].artifact)
            await say("timeline", "four")
            assert await versions("timeline") == ["two", "four"]
