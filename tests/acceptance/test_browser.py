"""What a person sees: the run history and the pages, in a real browser on the real UI.

`PICTURES=folder` keeps what the browser saw. `CHROMIUM` names a browser; without it one of `PATH` is used.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.devnet import Fault, FaultPlan, ProverTiming
from tests.acceptance.browser import Page, browser
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import Hold, Ledger, Prefect, Row, eventually, settled
from tests.acceptance.prefect_servers import SessionServer
from tests.devnets import StartDevnet

KEY = "s3cr3t-key-of-the-rpc"
EXPLORER = "https://explorer.example"


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A tab of a browser."""
    async with browser(tmp_path, height=1800) as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures of the pages are kept."""
    folder = Path(os.environ.get("PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _recorded(prefect: Prefect, name: str, state: str) -> None:
    """Wait until a run has a state: a page that was opened before does not show it by itself."""

    async def look() -> bool:
        return (name, state) in {(run["name"], run["state"]["name"]) for run in await prefect.runs("prove")}

    await eventually(f"{name} is {state}", look)


async def test_a_person_sees_in_the_ui_what_was_done_and_why(
    start_devnet: StartDevnet,
    up: StartUp,
    prefect: Prefect,
    rows: Ledger,
    page: Page,
    pictures: Path,
    prefect_server: SessionServer,
) -> None:
    """Run names and states while they happen and afterwards, status, timeline and cost; no secret on any of them."""
    faults = FaultPlan(rules=(Fault(kind="unfulfillable", block=1060, first=1),))
    devnet = await start_devnet(faults=faults, timing=ProverTiming(0.5, 1.0, 0.3, 0.5))
    one = up(devnet, L1_RPC=f"{devnet.l1_rpc}/?key={KEY}", EXPLORER_URL=EXPLORER, WITNESS_GEN_TIMEOUT="300s")
    root = prefect_server.api_url.removesuffix("/api")
    ui = f"{root}/v2"
    await settled(devnet, 1100, one)

    witness = Hold(devnet.prover.traps, "prover.range.arrived", start=1100)
    proving = Hold(devnet.prover.traps, "prover.proof.answering", start=1100, kind="range")
    devnet.l2.advance_to(1200)
    runs = f"{ui}/runs"
    await witness.reached()
    await _recorded(prefect, "range 1100→1150 · attempt 1", "WitnessGen")
    await page.go(runs)
    await page.shows("range 1100→1150 · attempt 1", "WitnessGen")
    witness.let_go()
    await proving.reached()
    await _recorded(prefect, "range 1100→1150 · attempt 1", "Proving")
    await page.go(runs)
    await page.shows("range 1100→1150 · attempt 1", "Proving")
    proving.let_go()
    await settled(devnet, 1200, one)
    await prefect.equal(rows)
    await page.go(runs)
    await page.shows("range 1000→1050 · attempt 1", "range 1050→1100 · attempt 2", "Complete", "Unfulfillable")
    await page.picture(pictures / "runs.png")

    failed, again = rows.requests("start_block = 1050 AND kind = 'RANGE'")
    await page.go(f"{ui}/runs/flow-run/{failed['flow_run_id']}")
    await page.shows("range 1050→1100 · attempt 1", "accepted by the prover as", f"carried on by request {again['id']}")
    await page.picture(pictures / "run-failed.png")
    proposed = rows.query("SELECT mined_hash FROM l1_transactions WHERE purpose = 'propose' ORDER BY id")
    hashes = ["0x" + bytes(row["mined_hash"]).hex() for row in proposed]

    timeline = await _page_with(prefect, "proposer-timeline", "1100, 1200")
    await page.go(f"{ui}/artifacts/artifact/{timeline['latest_id']}")
    await page.shows("range 1050→1100 · attempt 2", "Unfulfillable", "Outputs settled: 1100, 1200.")
    drawn = "[...document.images].filter(i => i.src.startsWith('data:image/svg')).map(i => [i.naturalWidth, i.width])"

    async def picture_is_drawn() -> list[list[int]]:
        found: list[list[int]] = await page.evaluate(drawn)
        return [sizes for sizes in found if min(sizes) > 400]

    await eventually("the timeline is drawn", picture_is_drawn)
    await page.picture(pictures / "timeline.png")
    link = "[...document.links].find(a => a.innerText == 'range 1050→1100 · attempt 2').click()"
    await page.evaluate(link)
    await page.shows("range 1050→1100 · attempt 2", "again after Unfulfillable")
    assert str(await page.evaluate("location.href")).startswith(f"{ui}/runs/flow-run/{again['flow_run_id']}")

    await page.go(f"{root}/artifacts/artifact/{timeline['latest_id']}")  # the UI of before
    await page.shows("range 1050→1100 · attempt 2", "Switch to V2 UI")
    await eventually("the timeline is drawn there too", picture_is_drawn)

    status = await _page_with(prefect, "proposer-status", "L2 block 1200")
    await page.go(f"{ui}/artifacts/artifact/{status['latest_id']}")
    await page.shows(
        "Contract head", "L2 block 1200", "Next required", "Behind", "0 blocks", "Cause: waiting-for-finality"
    )
    await page.shows("State Message")  # of the cycle that wrote it, in a narrow column
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it overflows"
    await page.picture(pictures / "status.png")
    cost = await _page_with(prefect, "proposer-cost", "| propose an output | 2 |")
    await page.go(f"{ui}/artifacts/artifact/{cost['latest_id']}")
    await page.shows("outcome unknown", "propose an output", "gas used", "Unfulfillable")
    await page.picture(pictures / "cost.png")

    assert any(f"{EXPLORER}/tx/{hashes[0]}" in line for line in await _log_lines(prefect))
    await _nothing_holds_the_key(prefect)


async def _page_with(prefect: Prefect, key: str, words: str) -> Row:
    """Wait until the newest artifact of this key says so."""

    async def look() -> Row | None:
        (newest, *_) = await prefect.all("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}}) or [None]
        return newest if newest is not None and words in newest["data"] else None

    found = await eventually(f"{key} says {words!r}", look)
    assert found is not None
    return found


async def _log_lines(prefect: Prefect) -> list[str]:
    return [line["message"] for line in await prefect.all("/logs/filter", {"sort": "TIMESTAMP_ASC"})]


async def _nothing_holds_the_key(prefect: Prefect) -> None:
    """Neither an artifact nor a log line, a run, a state or a parameter."""
    everything = [
        *await prefect.all("/artifacts/filter"),
        *await prefect.all("/flow_runs/filter"),
        *await prefect.all("/task_runs/filter"),
        *await _log_lines(prefect),
    ]
    assert len(everything) > 20
    assert [one for one in everything if KEY in str(one)] == []
