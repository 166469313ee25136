"""`proposer up`: start what is missing on this machine, apply, and run until SIGTERM."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack

from blocks.l1 import L1Chain
from blocks.ledger import Ledger
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from deployments.apply import apply
from deployments.claim import Claim
from deployments.embedded_postgres import EmbeddedPostgres
from deployments.environment import Environment, client_environment
from deployments.homes import claim_home
from deployments.metrics import Sources, serving
from deployments.prefect_server import PrefectServer, answers
from deployments.preflight import Preflight
from deployments.process import Process
from deployments.registry import Holding, hold, take
from deployments.signing import signer_block
from flows.context import Proposer
from proposer.errors import EndpointDown, InvalidSettings

log = logging.getLogger("proposer.up")


async def up(environment: Environment, stop: asyncio.Event) -> None:
    """Run the proposer of this environment until asked to stop, then drain.

    Raises `InvalidSettings` before anything is spent where the environment or what it points at is wrong.
    """
    assert environment.signer is not None  # only a dry run has none
    if (problem := claim_home(environment.home, environment.name)) is not None:
        raise InvalidSettings([problem])
    for name, why in environment.ignored.items():
        log.info("%s is ignored: %s", name, why)
    async with AsyncExitStack() as stack:
        database_url, postgres = await _database(environment, stack)
        ledger = Ledger(database_url)
        stack.push_async_callback(ledger.close)
        try:
            await ledger.migrate()
        except EndpointDown as error:
            raise InvalidSettings([f"DATABASE_URL: {error}; check the address and that it runs"]) from error
        known = await ledger.identity()
        l1 = L1Chain(urls=environment.l1_rpc, expected_chain_id=known.l1_chain_id if known else None)
        node = OpNode(urls=environment.node_rpc)
        oracle = L2OutputOracle(address=environment.oracle_address)
        server = SuccinctServer(url=environment.server_url, mock=environment.settings.mock)
        signer = signer_block(environment.signer)
        for block in (l1, node, server, signer):
            stack.push_async_callback(block.aclose)
        identity = await Preflight(l1=l1, node=node, oracle=oracle, server=server, signer=signer).check(known)
        await ledger.claim_identity(identity)
        log.info("rollup %s: ledger of %s; proposing as %s", environment.name, identity, signer.address)
        prefect = await _prefect(environment, stack, stop if known is None else None)
        holding = Holding(
            name=environment.name,
            l1_chain_id=identity.l1_chain_id,
            contract=oracle.address,
            account=signer.address,
            setting=signer.setting,
        )
        await take(holding)

        async def apply_once() -> None:
            await hold(holding, ledger)
            for line in await apply(environment, database_url):
                log.debug("set %s", line)

        supervisors = [s.supervise() for s in (postgres, prefect) if s is not None]
        tasks = [asyncio.create_task(supervisor) for supervisor in supervisors]
        for task in tasks:
            task.add_done_callback(_say_end)
        stack.callback(lambda: [task.cancel() for task in tasks])
        claim = Claim(ledger)
        proposer = Proposer(
            name=environment.name,
            settings=environment.settings,
            ledger=ledger,
            ledger_id=await ledger.ledger_id(),
            l1=l1,
            oracle=oracle,
            node=node,
            server=server,
            signer=signer,
            epoch=claim.epoch,
            still_leads=claim.holds,
        )
        if environment.metrics is not None:
            prefect_api_url = client_environment(environment)["PREFECT_API_URL"]
            sources = Sources(proposer, claim, identity, prefect_api_url)
            await stack.enter_async_context(serving(environment.metrics, sources))
        # requests that wait for the server's answer outlive a leadership that is lost and won again
        stack.callback(lambda: [task.cancel() for task in (*proposer.witnesses.values(), *proposer.rounds)])
        while not stop.is_set():
            if not await _until(stop, claim.take()):
                break
            proposer.epoch = claim.epoch
            if await Process(proposer, claim, stop, apply_once).lead():
                await claim.release()
        await _answered(proposer)
        log.info("stopped")


async def _answered(proposer: Proposer) -> None:
    """Wait for the answers to what a lost leadership has asked for: their ids are left for the one that leads."""
    if waiting := list(proposer.witnesses.values()):
        log.info("stopping: %d requests of a former leadership to be answered", len(waiting))
        await asyncio.wait(waiting, timeout=proposer.drain_left())


async def _database(environment: Environment, stack: AsyncExitStack) -> tuple[str, EmbeddedPostgres | None]:
    if environment.database_url is not None:
        return environment.database_url.get_secret_value(), None
    postgres = EmbeddedPostgres(environment.home / "postgres")
    url = await postgres.start()
    stack.push_async_callback(postgres.stop)
    # for psql and backups; there is no secret in it, the socket is this machine's only
    file = environment.home / "ledger.url"
    file.write_text(url + "\n", encoding="utf-8")
    file.chmod(0o600)
    return url, postgres


async def _prefect(environment: Environment, stack: AsyncExitStack, wait: asyncio.Event | None) -> PrefectServer | None:
    """Start a Prefect server of our own where none is named, or where the one named is this machine's and not there.

    Only the very first start waits for it (unless asked to stop), so that the first requests have their cycle.
    """
    named = environment.prefect_api_url
    if named is not None and (not environment.prefect_is_local or await answers(named)):
        return None
    server = PrefectServer(environment.home, environment.prefect_port)
    if wait is not None:
        await server.await_port()
    stack.push_async_callback(server.stop)
    server.start()
    log.info("Prefect: PREFECT_API_URL=%s (UI: %s)", server.api_url, server.api_url.removesuffix("/api"))
    if wait is not None and not await server.healthy(wait):
        log.warning("Prefect's server does not answer yet: see %s", environment.home / "prefect" / "server.log")
    return server


def _say_end(supervisor: "asyncio.Task[None]") -> None:
    if not supervisor.cancelled() and (error := supervisor.exception()) is not None:
        log.error("a server of this machine is no longer supervised, restart the proposer: %r", error)


async def _until(stop: asyncio.Event, wanted: Coroutine[None, None, None]) -> bool:
    """Wait for something unless asked to stop first; return whether it came."""
    waiting = asyncio.create_task(wanted)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not waiting.done():
        waiting.cancel()
        return False
    waiting.result()
    return True
