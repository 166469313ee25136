"""The operator's desk: this environment's ledger and outside, opened beside a running proposer or without one."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from blocks.l1 import L1Chain
from blocks.ledger import Ledger
from blocks.ledger.migrate import newest_revision
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from deployments.environment import Environment, ledger_of
from deployments.signing import signer_block
from flows.context import Proposer
from proposer.errors import EndpointDown, FixConfiguration, WrongLedger


def _nobody() -> bool:
    """The desk never leads: whatever asks before spending is refused."""
    return False


@asynccontextmanager
async def open_ledger(values: Mapping[str, str]) -> AsyncIterator[Ledger]:
    """Open the ledger of this environment.

    Raises `FixConfiguration` with what to do where none is named, it does not run, or it has another schema.
    """
    url, home = ledger_of(values)
    ledger = Ledger(url.get_secret_value())
    try:
        try:
            revision = await ledger.revision()
        except EndpointDown as error:
            raise FixConfiguration(
                f"DATABASE_URL: {error}; check the address and that it runs"
                if home is None
                else f"the embedded PostgreSQL in {home} does not run: it runs while proposer up does, so start that"
            ) from error
        if (problem := schema_problem(revision)) is not None:
            raise FixConfiguration(problem)
        yield ledger
    finally:
        await ledger.close()


def schema_problem(revision: str | None) -> str | None:
    """Say what is wrong with a schema of this revision."""
    newest = newest_revision()
    if revision is None:
        return "DATABASE_URL: the database holds no ledger yet; proposer up makes one at its first start"
    if revision != newest:
        return (
            f"DATABASE_URL: the ledger's schema is {revision}, and this version works on {newest}; proposer up of this "
            "version brings it up to date, an older version must be replaced"
        )
    return None


@asynccontextmanager
async def open_desk(environment: Environment, values: Mapping[str, str]) -> AsyncIterator[Proposer]:
    """Open the ledger and the blocks of this environment, to read with.

    Raises `FixConfiguration` as `open_ledger` does, and `WrongLedger` where it is another contract's.
    """
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(values))
        known = await ledger.identity()
        oracle = L2OutputOracle(address=environment.oracle_address)
        if known is not None and known.contract != oracle.address.lower():
            raise WrongLedger(
                f"L2OO_ADDRESS: this ledger belongs to {known}, not to {oracle.address}; correct the address, or set "
                "DATABASE_URL or PROPOSER_HOME to another ledger"
            )
        proposer = Proposer(
            name=environment.name,
            settings=environment.settings,
            ledger=ledger,
            ledger_id="",
            l1=L1Chain(urls=environment.l1_rpc, expected_chain_id=known.l1_chain_id if known else None),
            oracle=oracle,
            node=OpNode(urls=environment.node_rpc),
            server=SuccinctServer(url=environment.server_url, mock=environment.settings.mock),
            signer=signer_block(environment.signer) if environment.signer is not None else None,
            watched=environment.watched,
            epoch=0,
            still_leads=_nobody,
        )
        for block in (proposer.l1, proposer.node, proposer.server, proposer.signer):
            if block is not None:
                stack.push_async_callback(block.aclose)
        yield proposer
