"""Without a key: every decision on the real chain, shown and not carried out; no leadership, no write to a ledger."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from prefect import tags
from prefect.client.schemas.objects import State

from blocks.l1 import L1Chain
from blocks.ledger import Ledger
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from deployments.desk import schema_problem
from deployments.embedded_postgres import EmbeddedPostgres
from deployments.environment import Environment, client_environment
from deployments.homes import problem_with_home
from deployments.prefect_server import PrefectServer, answers
from deployments.preflight import Preflight
from flows.context import CURRENT, Proposer
from flows.cycle import call, propose_cycle, run_stages
from flows.mirror import PREFECT_AWAY
from flows.report import CycleReport
from flows.stages import observe
from proposer.errors import EndpointDown, FixConfiguration, InvalidSettings, ProposerError

log = logging.getLogger("proposer.dry_run")

TAG = "dry-run"


async def watch(environment: Environment, stop: asyncio.Event) -> None:
    """Run a dry cycle every `POLL_INTERVAL` until asked to stop, each a run in Prefect while Prefect is there."""
    async with AsyncExitStack() as stack:
        proposer = await stack.enter_async_context(open_dry(environment))
        if environment.metrics is not None:
            log.info("METRICS_PORT is ignored: there is nothing to measure in a dry run")
        prefect_api_url = await _prefect(environment, stack, stop)
        CURRENT.set(proposer)
        while not stop.is_set():
            await _cycle(proposer, prefect_api_url)
            try:
                async with asyncio.timeout(environment.settings.poll_interval):
                    await stop.wait()
            except TimeoutError:
                pass
        log.info("stopped")


async def look(environment: Environment) -> tuple[Proposer, CycleReport]:
    """Run one dry cycle without Prefect; return what was decided, and by whom."""
    async with open_dry(environment) as proposer:
        return proposer, await run_stages(proposer, call, observe.plainly, dry_run=True)


@asynccontextmanager
async def open_dry(environment: Environment) -> AsyncIterator[Proposer]:
    """Open the blocks and a ledger that cannot be written.

    Raises `FixConfiguration` listing what is wrong with the environment, or with what it points at.
    """
    if (problem := problem_with_home(environment.home, environment.name)) is not None:
        raise InvalidSettings([problem])
    async with AsyncExitStack() as stack:
        ledger = await _ledger(environment, stack)
        known = await ledger.identity()
        proposer = Proposer(
            name=environment.name,
            settings=environment.settings,
            ledger=ledger,
            ledger_id="",
            l1=L1Chain(urls=environment.l1_rpc, expected_chain_id=known.l1_chain_id if known else None),
            oracle=L2OutputOracle(address=environment.oracle_address),
            node=OpNode(urls=environment.node_rpc),
            server=SuccinctServer(url=environment.server_url, mock=environment.settings.mock),
            signer=None,
            epoch=0,
            still_leads=_nobody,
            watched=environment.watched or await ledger.last_sender(),
        )
        for block in (proposer.l1, proposer.node, proposer.server):
            stack.push_async_callback(block.aclose)
        await Preflight(
            l1=proposer.l1, node=proposer.node, oracle=proposer.oracle, server=proposer.server, signer=None
        ).check(known)
        log.info(
            "dry run: nothing is asked for, sent or written; transactions are simulated as %s",
            proposer.account or "nobody (set SIGNER_ADDRESS to the proposer's account)",
        )
        yield proposer


def _nobody() -> bool:
    """A dry run never leads: whatever asks before spending is refused."""
    return False


async def _ledger(environment: Environment, stack: AsyncExitStack) -> Ledger:
    """Open the ledger that is there, for reading, or else an empty one of its own that is thrown away."""
    url: str | None = None
    if environment.database_url is not None:
        url = environment.database_url.get_secret_value()
    elif (environment.home / "postgres" / "PG_VERSION").exists():
        url = await _postgres(environment.home / "postgres", stack)
    if url is not None:
        ledger = Ledger(url, read_only=True)
        stack.push_async_callback(ledger.close)
        try:
            revision = await ledger.revision()
        except EndpointDown as error:
            raise InvalidSettings([f"DATABASE_URL: {error}; check the address and that it runs"]) from error
        if revision is not None:
            if (problem := schema_problem(revision)) is not None:
                raise FixConfiguration(problem)
            log.info("dry run: decided on the ledger that is there, which is only read")
            return ledger
    log.info("dry run: decided on an empty ledger, since there is none yet")
    # kept until the server that runs in it has stopped
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dry-run-", ignore_cleanup_errors=True))
    url = await _postgres(Path(folder) / "postgres", stack)
    empty = Ledger(url)
    await empty.migrate()
    await empty.close()
    ledger = Ledger(url, read_only=True)
    stack.push_async_callback(ledger.close)
    return ledger


async def _postgres(folder: Path, stack: AsyncExitStack) -> str:
    postgres = EmbeddedPostgres(folder)
    url = await postgres.start()
    stack.push_async_callback(postgres.stop)
    return url


async def _prefect(environment: Environment, stack: AsyncExitStack, stop: asyncio.Event) -> str:
    """Return where Prefect's API is; one on this machine that is not there is started."""
    url = client_environment(environment)["PREFECT_API_URL"]
    if await answers(url) or (environment.prefect_api_url is not None and not environment.prefect_is_local):
        return url
    environment.home.mkdir(parents=True, exist_ok=True)
    server = PrefectServer(environment.home, environment.prefect_port)
    await server.await_port()
    stack.push_async_callback(server.stop)
    server.start()
    supervisor = asyncio.create_task(server.supervise())
    stack.callback(supervisor.cancel)
    log.info("Prefect: PREFECT_API_URL=%s (UI: %s)", server.api_url, server.api_url.removesuffix("/api"))
    await server.healthy(stop)
    return url


async def _cycle(proposer: Proposer, prefect_api_url: str) -> None:
    if await answers(prefect_api_url):
        try:
            with tags(TAG, f"rollup-{proposer.name}"):
                state: State[object] = await propose_cycle(dry_run=True, return_state=True)  # pyright: ignore[reportGeneralTypeIssues] - Prefect's overload
        except PREFECT_AWAY as error:
            log.warning("Prefect's server went away: %s", type(error).__name__)
        else:
            log.info("dry run: %s", state.message)
            return
    try:
        report = await run_stages(proposer, call, observe.plainly, dry_run=True)
    except ProposerError as error:
        log.warning("dry run: %s", error)
        return
    for sentence in [*report.did, *report.would, *report.reasons]:
        log.info("dry run: %s", sentence)
    for name, text in report.failed.items():
        log.warning("dry run: stage %s failed: %s", name, text)
