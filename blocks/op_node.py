"""The rollup node (op-node): how far the L2 is, and its output roots."""

from dataclasses import dataclass
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from blocks.base import CONFIG, Outside
from blocks.fields import bad, data, integer, member
from blocks.http import endpoints
from blocks.rpc import Failover
from proposer.units import L2Block


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """What of `optimism_syncStatus` the proposer uses: L2 heads, 0 while the node starts."""

    finalized: L2Block
    unsafe: L2Block


@dataclass(frozen=True, slots=True)
class RollupConfig:
    """What of `optimism_rollupConfig` the proposer uses; a node may leave out the L1's chain id."""

    l1_chain_id: int | None
    l2_chain_id: int


class OpNode(Outside, Block):
    """The rollup node's JSON-RPC. Where several URLs are given the next one is asked when one is down."""

    model_config = CONFIG
    _block_type_name: ClassVar[str | None] = "OP Succinct OP Node"
    _block_type_slug: ClassVar[str | None] = "op-succinct-op-node"
    _description: ClassVar[str | None] = "Reads sync status and output roots from the rollup node (op-node)."

    urls: SecretStr = Field(description="Rollup node RPC URL, or several separated by commas, in order of preference.")
    timeout_seconds: float = Field(default=5, gt=0, description="Seconds one call to one URL may take.")
    _rpc: Failover = PrivateAttr()

    def block_initialization(self) -> None:
        """Read the URLs; raises `InvalidSettings`."""
        self._rpc = Failover(endpoints(self.urls.get_secret_value(), "L2_NODE_RPC"), self.timeout_seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rpc.aclose()

    async def sync_status(self) -> SyncStatus:
        """Read the node's L2 heads; raises `BadReply` where the finalized one lies above the unsafe one."""
        method = "optimism_syncStatus"
        result, client = await self._rpc.call_with(method)
        where = f"{method} of {client.name}"
        finalized, unsafe = (
            integer(member(result, f"{name}.number", where), f"{name}.number", where)
            for name in ("finalized_l2", "unsafe_l2")
        )
        # the highest finalized block ever seen is remembered: one wild number would be planned for
        if finalized > unsafe:
            raise bad(where, "finalized_l2.number", finalized, f"at most unsafe_l2.number, {unsafe}")
        return SyncStatus(L2Block(finalized), L2Block(unsafe))

    async def output_root(self, number: int) -> bytes:
        """Read the 32-byte output root at an L2 block.

        Raises `BadReply` where the version is not 0 or the answer is about another block (a caching proxy does that),
        and `RpcError` where the node has not got the block. Whether the root is right is for the contract to say.
        """
        method = "optimism_outputAtBlock"
        result, client = await self._rpc.call_with(method, hex(number))
        where = f"{method} of {client.name}"
        version = data(member(result, "version", where), "version", where, 32)
        if any(version):
            raise bad(where, "version", "0x" + version.hex(), "0, the only one this proposer knows")
        block = integer(member(result, "blockRef.number", where), "blockRef.number", where)
        if block != number:
            raise bad(where, "blockRef.number", block, f"the block asked for, {number}")
        root = data(member(result, "outputRoot", where), "outputRoot", where, 32)
        if not any(root):
            raise bad(where, "outputRoot", "0x" + root.hex(), "an output root")
        return root

    async def rollup_config(self) -> RollupConfig:
        """Read the chain ids."""
        method = "optimism_rollupConfig"
        result, client = await self._rpc.call_with(method)
        where = f"{method} of {client.name}"
        l2 = integer(member(result, "l2_chain_id", where), "l2_chain_id", where)
        named = isinstance(result, dict) and result.get("l1_chain_id") is not None
        l1 = integer(member(result, "l1_chain_id", where), "l1_chain_id", where) if named else None
        return RollupConfig(l1, l2)
