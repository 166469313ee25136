"""The rollup node (op-node): how far the L2 is, and its output roots."""

from dataclasses import dataclass
from typing import ClassVar

from eth_utils.crypto import keccak
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from blocks.base import CONFIG, Outside
from blocks.fields import bad, data, integer, member
from blocks.http import endpoints
from blocks.rpc import Failover
from proposer.errors import BadReply
from proposer.units import L1Block, L2Block


@dataclass(frozen=True, slots=True)
class L2Head:
    """An L2 block; the time in unix seconds. All zero while the node starts."""

    number: L2Block
    hash: bytes
    timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """`optimism_syncStatus`."""

    current_l1: L1Block
    head_l1: L1Block
    safe_l1: L1Block
    finalized_l1: L1Block
    unsafe_l2: L2Head
    safe_l2: L2Head
    finalized_l2: L2Head


@dataclass(frozen=True, slots=True)
class OutputRoot:
    """An output root and the L2 block it commits to."""

    root: bytes
    block: L2Block
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class RollupConfig:
    """What of `optimism_rollupConfig` the proposer uses; the block time in seconds."""

    l1_chain_id: int
    l2_chain_id: int
    block_time: int


class OpNode(Outside, Block):
    """The rollup node's JSON-RPC. Where several URLs are given the next one is asked when one is down."""

    model_config = CONFIG
    _block_type_name: ClassVar[str | None] = "OP Succinct OP Node"
    _block_type_slug: ClassVar[str | None] = "op-succinct-op-node"
    _description: ClassVar[str | None] = "Reads sync status and output roots from the rollup node (op-node)."

    urls: SecretStr = Field(description="Rollup node RPC URL, or several separated by commas, in order of preference.")
    timeout_seconds: float = Field(default=10, gt=0, description="Seconds one call to one URL may take.")
    _rpc: Failover = PrivateAttr()

    def block_initialization(self) -> None:
        """Read the URLs; raises `InvalidSettings`."""
        self._rpc = Failover(endpoints(self.urls.get_secret_value(), "L2_NODE_RPC"), self.timeout_seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rpc.aclose()

    async def sync_status(self) -> SyncStatus:
        """Read the node's L1 and L2 heads."""
        method = "optimism_syncStatus"
        result, client = await self._rpc.call_with(method)
        where = f"{method} of {client.name}"

        def l1(name: str) -> L1Block:
            return L1Block(integer(member(result, f"{name}.number", where), f"{name}.number", where))

        def l2(name: str) -> L2Head:
            return L2Head(
                L2Block(integer(member(result, f"{name}.number", where), f"{name}.number", where)),
                data(member(result, f"{name}.hash", where), f"{name}.hash", where, 32),
                integer(member(result, f"{name}.timestamp", where), f"{name}.timestamp", where),
            )

        return SyncStatus(
            current_l1=l1("current_l1"),
            head_l1=l1("head_l1"),
            safe_l1=l1("safe_l1"),
            finalized_l1=l1("finalized_l1"),
            unsafe_l2=l2("unsafe_l2"),
            safe_l2=l2("safe_l2"),
            finalized_l2=l2("finalized_l2"),
        )

    async def output_at_block(self, number: int) -> OutputRoot:
        """Read the output root at an L2 block and check it.

        Raises `BadReply` where the version is not 0, the block is another, or the root is not
        keccak(version, state root, withdrawal storage root, block hash), and `RpcError` where the node has not got it.
        """
        method = "optimism_outputAtBlock"
        result, client = await self._rpc.call_with(method, hex(number))
        where = f"{method} of {client.name}"
        version = data(member(result, "version", where), "version", where, 32)
        if any(version):
            raise bad(where, "version", "0x" + version.hex(), "0, the only one this proposer knows")
        root = data(member(result, "outputRoot", where), "outputRoot", where, 32)
        block = integer(member(result, "blockRef.number", where), "blockRef.number", where)
        if block != number:
            raise bad(where, "blockRef.number", block, f"the block asked for, {number}")
        block_hash = data(member(result, "blockRef.hash", where), "blockRef.hash", where, 32)
        if isinstance(result, dict) and {"stateRoot", "withdrawalStorageRoot"} <= result.keys():
            state, withdrawals = (
                data(member(result, name, where), name, where, 32) for name in ("stateRoot", "withdrawalStorageRoot")
            )
            if root != keccak(version + state + withdrawals + block_hash):
                raise BadReply(f"{where}: outputRoot is not the hash of the state it names, at block {number}")
        return OutputRoot(root, L2Block(number), block_hash)

    async def rollup_config(self) -> RollupConfig:
        """Read the chain ids and the block time."""
        method = "optimism_rollupConfig"
        result, client = await self._rpc.call_with(method)
        where = f"{method} of {client.name}"
        names = ("l1_chain_id", "l2_chain_id", "block_time")
        return RollupConfig(*(integer(member(result, name, where), name, where) for name in names))
