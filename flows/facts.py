"""What can never change about a rollup, read once and cached by Prefect."""

from datetime import timedelta
from typing import Any

from prefect import task
from prefect.context import TaskRunContext

from flows.context import current
from flows.retries import is_down
from proposer.snapshot import Outside


def _key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Both chain ids and the contract name a rollup; its block time and first block are fixed at deployment."""
    del context
    return f"l2-block-time-{parameters['l1_chain_id']}-{parameters['contract'].lower()}"


@task(
    name="read-l2-block-time",
    cache_key_fn=_key,
    persist_result=True,
    retries=2,
    retry_delay_seconds=[0.2, 0.6],
    retry_jitter_factor=0.3,
    retry_condition_fn=is_down,
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
