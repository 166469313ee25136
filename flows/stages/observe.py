"""Look outside: contract, node and server, each failing alone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from flows.context import Proposer
from proposer.errors import ProposerError
from proposer.snapshot import NodeView, OracleView, Outside, ServerView, next_required

DEADLINE_SECONDS = 12
"""A hanging endpoint may hold up a cycle for this long and no longer."""

FINAL_SECONDS = 1800.0
"""After so long an L1 block is final: an output that somebody proposed is not taken back by a reorg any more, and the
proofs that it made superfluous are not waited for."""
KEPT_SECONDS = 86_400
"""At least so long proofs are kept that are settled, however soon the contract's outputs are final."""
PRUNE_SECONDS = 600.0
"""Between two deletions of proofs that are not needed any more: it reads every proof's row, a look reads none."""

PRUNED_AT_ONCE = 50
"""Proofs deleted in one transaction, of a megabyte each; what is left of them follows at the next look."""

T = TypeVar("T")


class Read(Protocol):
    """How a read is run: plainly, or as a Prefect task of this name."""

    async def __call__(self, name: str, look: Callable[[], Awaitable[T]], /) -> T:
        """Run the read and return what it read."""
        ...


async def plainly(name: str, look: Callable[[], Awaitable[T]]) -> T:
    """Read without Prefect; the next look comes soon enough to do without a retry."""
    del name
    return await look()


async def observe(proposer: Proposer, read: Read, *, afresh: bool = True) -> Outside:
    """Read everything a cycle decides on. What fails is None, with its error's text; nothing is raised.

    All reads of the contract are pinned to one L1 block. Where not `afresh`, as between cycles, a server that agreed is
    not asked again, and the contract only where L1 has another head than at the look before.
    """
    errors: dict[str, str] = {}
    anchors = await proposer.ledger.anchors()
    oracle_look = asyncio.create_task(_try(errors, "l1", read("read-l1", lambda: _oracle(proposer, anchors, afresh))))

    async def node_beside(oracle: Awaitable[OracleView | None]) -> NodeView:
        node = await _node(proposer)
        at = await oracle
        return node if at is None else await _with_root(proposer, node, at)

    async def server() -> ServerView | None:
        known = proposer.last_server
        if not afresh and known is not None and not known.mismatches:
            return known
        said = await _try(errors, "server", read("validate-config", lambda: _server(proposer)))
        # no answer takes back that the two differ
        return known if said is None and known is not None and known.mismatches else said

    node, server_view, oracle = await asyncio.gather(
        _try(errors, "node", read("read-l2-node", lambda: node_beside(asyncio.shield(oracle_look)))),
        server(),
        oracle_look,
    )
    return Outside(oracle=oracle, node=node, server=server_view, errors=errors)


async def remember(proposer: Proposer, outside: Outside) -> None:
    """Write down what later decisions need of this look: the highest finality, and when it reached the next output."""
    async with proposer.write() as writer:
        if outside.node is not None and outside.node.finalized > 0:
            await writer.mark("finalized", outside.node.finalized, rising=True)
        if outside.oracle is not None:
            await writer.fill_l1_heads(outside.oracle.at)
            await writer.stop_looking_below(outside.oracle.latest_block, FINAL_SECONDS)
            if time.monotonic() - proposer.pruned_at > PRUNE_SECONDS:
                # neither the contract's owner nor a reorg takes an older output away: no proof below is needed again
                kept = max(outside.oracle.finalization_period, KEPT_SECONDS)
                if await writer.prune_proofs(kept, PRUNED_AT_ONCE) < PRUNED_AT_ONCE:
                    proposer.pruned_at = time.monotonic()
            required = next_required(outside.oracle.latest_block, proposer.settings, outside.oracle)
            if await writer.finalized() >= required:
                await writer.mark("required", required, rising=False)


async def _try(errors: dict[str, str], name: str, look: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await look
    except ProposerError as error:
        errors[name] = str(error)
    except TimeoutError:
        errors[name] = f"no answer within {DEADLINE_SECONDS} s"
    return None


async def _oracle(proposer: Proposer, anchors: Sequence[int], afresh: bool) -> OracleView:
    at, last = await proposer.l1.head(), proposer.last_oracle
    if not afresh and last is not None and last.at.hash == at.hash and [*last.anchors] == [*anchors]:
        return last
    view = await proposer.oracle.view(proposer.l1, at, proposer.account, anchors)
    # whether an account that nobody has named may propose is not known, and nothing is sent without a key
    proposer.last_oracle = view if proposer.account is not None else replace(view, approved=True)
    return proposer.last_oracle


async def _node(proposer: Proposer) -> NodeView:
    status = await proposer.node.sync_status()
    return NodeView(finalized=status.finalized, unsafe=status.unsafe, root_at_head=None)


async def _with_root(proposer: Proposer, node: NodeView, oracle: OracleView) -> NodeView:
    """Add the node's root at the contract head; a node that does not have the block yet is behind, not wrong."""
    if node.finalized < oracle.latest_block:
        return node
    root = await proposer.node.output_root(oracle.latest_block)
    return NodeView(finalized=node.finalized, unsafe=node.unsafe, root_at_head=root)


async def _server(proposer: Proposer) -> ServerView:
    return await proposer.server.validate_config(proposer.oracle.address)
