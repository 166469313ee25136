"""Write the pages to Prefect after a cycle: beside it, never in its way, and only what changed.

A cycle in which nothing happened costs one indexed query. A page that changed costs one call to Prefect: the status
is a new artifact under its key, the others are written over until they are an hour old, so that each key has a history
and Prefect's database does not grow with every redrawing.
"""

import asyncio
import contextvars
import logging
import re
import time
from contextlib import nullcontext
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import get_settings_context
from prefect.exceptions import PrefectHTTPStatusError

from blocks.ledger.figures import FiguresReader
from blocks.ledger.history import history, last_event
from flows import desk
from flows.context import Page, Proposer
from flows.mirror import PREFECT_AWAY
from flows.pages.cost import cost_page
from flows.pages.status import status_page
from flows.pages.timeline import HOURS, LIVES, timeline_page
from flows.report import CycleReport
from proposer.errors import ProposerError

log = logging.getLogger("proposer.pages")

SECONDS = 20.0
"""How long writing the pages of one cycle may take; the next cycle's go on from there."""
STALE_SECONDS = 600.0
"""After which status and timeline are written although nothing but the time has changed."""
REDRAW_SECONDS = 20.0
"""Between two redrawings of the timeline and the cost."""
RENEW_SECONDS = 3600.0
"""After which a page that is written over becomes a new one."""

LATER = "the pages in Prefect are written after a later cycle: %s"

_DESCRIPTIONS = {
    "status": "Where everything stands, why the next output is not settled yet, and what to do.",
    "timeline": "What became of the newest proof requests.",
    "cost": "What proofs and L1 transactions have cost since the ledger began.",
}


@dataclass(frozen=True, slots=True)
class Write:
    """A page to be written."""

    page: str
    text: str
    mark: object
    over: bool = True


def artifact_key(name: str, page: str) -> str:
    """Return the key of a page's artifacts, the same for ever: Prefect takes small letters, digits and dashes."""
    return f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}-{page}"


def publish(proposer: Proposer, report: CycleReport, run_id: str) -> None:
    """Start writing what changed, as artifacts of this run; skipped while an earlier cycle's are being written."""
    if proposer.publishing is not None and not proposer.publishing.done():
        return
    # a context of its own: Prefect's client in the cycle's context dies with the cycle; its settings go on
    context = contextvars.Context()
    context.run(get_settings_context().model_copy().__enter__)
    proposer.publishing = asyncio.get_running_loop().create_task(
        _publish(proposer, report, UUID(run_id)), name="pages", context=context
    )
    proposer.publishing.add_done_callback(_ended)


def _ended(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("the pages in Prefect could not be written: %r", error)


async def _publish(proposer: Proposer, report: CycleReport, run_id: UUID) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            writes = await pages_to_write(proposer, report)
            if writes:
                async with nullcontext(proposer.prefect) if proposer.prefect else get_client() as client:
                    for write in writes:
                        await put(proposer, client, write, run_id)
    except PREFECT_AWAY as error:
        log.info(LATER, type(error).__name__)
    except ProposerError as error:
        log.info(LATER, error)


async def pages_to_write(proposer: Proposer, report: CycleReport) -> list[Write]:
    """Read and render the pages that changed since they were written, or are too old."""
    event = await last_event(proposer.ledger)
    outside, now = report.outside, time.monotonic()
    head = outside.oracle.latest_block if outside is not None and outside.oracle is not None else None
    reasons = tuple((r.code, r.facts.get("request")) for r in report.reasons)
    mark = (event, head, reasons, tuple(report.failed.items()))
    writes: list[Write] = []
    if outside is not None and _is_due(proposer, "status", mark, 0.0, STALE_SECONDS, now):
        situation = await desk.situation_of(proposer, outside)
        standing, why = await desk.standing(proposer, situation), await desk.explain(proposer, situation)
        text = status_page(standing, why, proposer.settings.explorer_url, report.failed)
        writes.append(Write("status", text, mark, over=False))
    if _is_due(proposer, "timeline", event, REDRAW_SECONDS, STALE_SECONDS, now):
        writes.append(Write("timeline", timeline_page(await history(proposer.ledger, HOURS, LIVES)), event))
    if _is_due(proposer, "cost", event, REDRAW_SECONDS, None, now):
        proposer.figures = proposer.figures or FiguresReader(proposer.ledger)
        figures = await proposer.figures.read()
        if figures.totals is not None:  # a long history is being added up
            writes.append(Write("cost", cost_page(figures.totals, figures.now), event))
    return writes


def _is_due(proposer: Proposer, name: str, mark: object, least: float, most: float | None, now: float) -> bool:
    """Whether a page has changed and the last one is `least` seconds old, or it is `most` seconds old."""
    page = proposer.pages.get(name)
    if page is None:
        return True
    age = now - page.written_at
    return (page.mark != mark and age >= least) or (most is not None and age >= most)


async def put(proposer: Proposer, client: PrefectClient, write: Write, run_id: UUID) -> None:
    """Write one page: over its last version where that may be, else as a new version under its key."""
    page, now = proposer.pages.get(write.page), time.monotonic()
    if write.over and page is not None and now - page.begun_at < RENEW_SECONDS:
        try:
            await client.update_artifact(page.artifact, ArtifactUpdate(data=write.text))
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            # deleted in Prefect, by hand or with its run: a new one is made
        else:
            proposer.pages[write.page] = Page(page.artifact, write.mark, page.begun_at, now)
            return
    made = await client.create_artifact(
        ArtifactCreate(
            key=artifact_key(proposer.name, write.page),
            type="markdown",
            description=_DESCRIPTIONS[write.page],
            data=write.text,
            flow_run_id=run_id,
        )
    )
    proposer.pages[write.page] = Page(made.id, write.mark, now, now)
