"""What can never change about a rollup, read once and cached by Prefect."""

from datetime import timedelta
from typing import Any

from prefect import task
from prefect.context import TaskRunContext

from flows.context import current
from flows.retries import READ_RETRIES
from proposer.snapshot import Outside


def _key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Both chain ids and the contract name a rollup; its block time and first block are fixed at deployment."""
    del context
    return f"l2-block-time-{parameters['l1_chain_id']}-{parameters['contract'].lower()}"


@task(
    name="read-l2-block-time",
    cache_key_fn=_key,
    persist_result=True,
    **READ_RETRIES,
)
async def l2_block_time(l1_chain_id: int, contract: str) -> int:
    """Read the seconds between two L2 blocks from the contract; cached for ever under chain id and contract."""
    del l1_chain_id, contract  # they are the key
    proposer = current()
    return await proposer.oracle.l2_block_time(proposer.l1)


def lag(outside: Outside, block_seconds: int | None) -> str:
    """Say how far the contract is behind finality, in blocks and, where known, in time."""
    if outside.oracle is None or outside.node is None or outside.node.finalized == 0:
        return "the lag is not known"
    blocks = max(0, outside.node.finalized - outside.oracle.latest_block)
    behind = f" ({timedelta(seconds=blocks * block_seconds)})" if block_seconds else ""
    return f"settled {outside.oracle.latest_block}, finalized {outside.node.finalized}: {blocks} blocks{behind} behind"
