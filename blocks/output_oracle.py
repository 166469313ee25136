"""The `L2OutputOracle` contract (v1 ABI). Functions are chosen by full signature: `proposeL2Output` is overloaded."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import is_checksum_address, is_hex_address, to_checksum_address
from eth_utils.crypto import keccak
from prefect.blocks.core import Block
from pydantic import Field

from blocks.base import CONFIG, Outside
from blocks.fields import MOST, bad
from blocks.l1 import L1Chain
from proposer.errors import BadReply, InvalidSettings, Reverted
from proposer.requests import Commitments
from proposer.snapshot import Anchor, OracleView
from proposer.units import L1Ref, L2Block

ZERO_ADDRESS = "0x" + "00" * 20
PROPOSE = "proposeL2Output(bytes32,uint256,uint256,bytes)"
CHECKPOINT = "checkpointBlockHash(uint256)"
_SIGNATURES = (
    PROPOSE,
    CHECKPOINT,
    "version()",
    "latestBlockNumber()",
    "nextOutputIndex()",
    "getL2Output(uint256)",
    "historicBlockHashes(uint256)",
    "submissionInterval()",
    "aggregationVkey()",
    "rangeVkeyCommitment()",
    "rollupConfigHash()",
    "optimisticMode()",
    "approvedProposers(address)",
    "finalizationPeriodSeconds()",
    "startingBlockNumber()",
    "startingTimestamp()",
    "l2BlockTime()",
)
SELECTORS: Mapping[str, bytes] = MappingProxyType({s: keccak(text=s)[:4] for s in _SIGNATURES})
"""Selector by full signature."""
_IMPLEMENTATION_SLOT = (int.from_bytes(keccak(text="eip1967.proxy.implementation")) - 1).to_bytes(32)
_WORD = 32


@dataclass(frozen=True, slots=True)
class Output:
    """A stored output: root, L1 time of its proposal in unix seconds, and L2 block."""

    root: bytes
    timestamp: int
    block: L2Block


def encode_checkpoint(number: int) -> bytes:
    """Encode `checkpointBlockHash` of an L1 block."""
    return SELECTORS[CHECKPOINT] + abi_encode(["uint256"], [number])


def encode_propose(root: bytes, l2_block: int, l1_block: int, proof: bytes) -> bytes:
    """Encode `proposeL2Output` in validity mode."""
    arguments = abi_encode(["bytes32", "uint256", "uint256", "bytes"], [root, l2_block, l1_block, proof])
    return SELECTORS[PROPOSE] + arguments


class L2OutputOracle(Outside, Block):
    """The contract that stores output roots. Reads take the L1 chain and the block they are pinned to.

    Reads raise what `L1Chain.call` raises; `BadReply` where the address does not answer like the contract.
    """

    model_config = CONFIG
    _block_type_name: ClassVar[str | None] = "OP Succinct L2 Output Oracle"
    _block_type_slug: ClassVar[str | None] = "op-succinct-l2-output-oracle"
    _description: ClassVar[str | None] = "The L2OutputOracle contract that output roots are proposed to."

    address: str = Field(description="Address of the L2OutputOracle (its proxy) on L1.")

    def block_initialization(self) -> None:
        """Check the address; raises `InvalidSettings`."""
        given = self.address.strip()
        digits = given[2:]
        mixed = digits not in {digits.lower(), digits.upper()}
        problem = None
        if not given.startswith("0x") or not is_hex_address(given):
            problem = f"L2OO_ADDRESS is {given[:80]!r}, not an address: 0x and 40 hex digits"
        elif mixed and not is_checksum_address(given):
            problem = f"L2OO_ADDRESS {given} has a wrong EIP-55 checksum: correct it, or write it in lower case"
        elif int(given, 16) == 0:
            problem = "L2OO_ADDRESS is the zero address: set it to the deployed contract (its proxy)"
        if problem:
            raise InvalidSettings([problem])
        self.address = to_checksum_address(given)

    async def _read(self, l1: L1Chain, at: L1Ref | None, signature: str, kind: str, *args: Any) -> Any:
        """Call a getter whose answer is one static value, or a tuple of them."""
        name, _, types = signature.partition("(")
        inputs = [t for t in types.rstrip(")").split(",") if t]
        remedy = f"is {self.address} the L2OutputOracle (v1 ABI) on this chain? Check L2OO_ADDRESS and L1_RPC"
        try:
            answer = await l1.call(self.address, SELECTORS[signature] + abi_encode(inputs, list(args)), at)
        except Reverted as error:
            if error.data or inputs:
                raise
            raise BadReply(f"{name}() is not known to the contract: {remedy}") from error
        kinds = kind.split(",")
        if kind != "string" and len(answer) != _WORD * len(kinds):
            raise BadReply(f"{name}() answered {len(answer)} bytes, not {_WORD * len(kinds)}: {remedy}")
        try:
            values = abi_decode(kinds, answer)
        except (DecodingError, UnicodeDecodeError, OverflowError):
            raise BadReply(f"{name}() answered what is no {kind}: {remedy}") from None
        return values[0] if len(kinds) == 1 else values

    async def _count(self, l1: L1Chain, at: L1Ref | None, signature: str) -> int:
        """Call a getter that answers a number of blocks, outputs or seconds."""
        return _countable(await self._read(l1, at, signature, "uint256"), signature.partition("(")[0] + "()")

    async def view(
        self, l1: L1Chain, at: L1Ref, proposer_address: str | None, anchors: Sequence[int] = ()
    ) -> OracleView:
        """Read everything a decision needs, concurrently and at one L1 block; `anchors` are L1 blocks by number."""
        count = asyncio.ensure_future(self._count(l1, at, "nextOutputIndex()"))

        async def latest_root() -> bytes | None:
            outputs = await count
            return (await self.output_at(l1, outputs - 1, at)).root if outputs else None

        async def approved(who: str) -> bool:
            return await self._read(l1, at, "approvedProposers(address)", "bool", who)

        async def balance() -> Any:
            return None if proposer_address is None else await l1.balance(proposer_address, at)

        names = (
            ("latestBlockNumber()", "uint256"),
            ("submissionInterval()", "uint256"),
            ("rangeVkeyCommitment()", "bytes32"),
            ("aggregationVkey()", "bytes32"),
            ("rollupConfigHash()", "bytes32"),
            ("optimisticMode()", "bool"),
            ("finalizationPeriodSeconds()", "uint256"),
        )
        who = {ZERO_ADDRESS, proposer_address or ZERO_ADDRESS}
        values = await together(
            count,
            latest_root(),
            balance(),
            l1.block("safe"),
            together(*(self._anchor(l1, at, number) for number in anchors)),
            *(approved(one) for one in who),
            *(self._read(l1, at, signature, kind) for signature, kind in names),
        )
        _, root, funds, safe, anchored = values[:5]
        latest, interval, range_vkey, agg_vkey, config, optimistic, period = values[-len(names) :]
        return OracleView(
            at=at,
            safe=None if safe is None else safe.number,
            latest_block=L2Block(_countable(latest, "latestBlockNumber()")),
            latest_root=root,
            submission_interval=interval,
            commitments=Commitments(range_vkey, agg_vkey, config),
            optimistic=optimistic,
            approved=any(values[5 : 5 + len(who)]),
            finalization_period=period,
            balance=funds,
            anchors=dict(zip(anchors, anchored, strict=True)),
        )

    async def _anchor(self, l1: L1Chain, at: L1Ref, number: int) -> Anchor:
        """Read an L1 block as a checkpoint; the chain is asked only for one that the contract does not have."""
        stored = await self.historic_hash(l1, number, at)
        block = await l1.block(number) if stored is None else None
        return Anchor(stored, block.hash if block is not None else None)

    async def historic_hash(self, l1: L1Chain, number: int, at: L1Ref | None = None) -> bytes | None:
        """Read the checkpointed hash of an L1 block; None where it is not checkpointed."""
        found: bytes = await self._read(l1, at, "historicBlockHashes(uint256)", "bytes32", number)
        return found if any(found) else None

    async def output_at(self, l1: L1Chain, index: int, at: L1Ref | None = None) -> Output:
        """Read a stored output; raises `Reverted` (a panic) where there is none."""
        root, timestamp, block = await self._read(l1, at, "getL2Output(uint256)", "bytes32,uint128,uint128", index)
        return Output(root, _countable(timestamp, "getL2Output()"), L2Block(_countable(block, "getL2Output()")))

    async def l2_block_time(self, l1: L1Chain, at: L1Ref | None = None) -> int:
        """Read the L2 block time, in seconds."""
        return await self._count(l1, at, "l2BlockTime()")

    async def speaks_v1(self, l1: L1Chain) -> bool | None:
        """Whether the contract, or what its EIP-1967 proxy leads to, has v1's `proposeL2Output`; None if unclear.

        Later generations changed its arguments, and `version()` does not tell.
        """
        code, slot = await together(l1.code(self.address), l1.storage(self.address, _IMPLEMENTATION_SLOT))
        if any(slot[-20:]):
            code += await l1.code(to_checksum_address(slot[-20:]))
        if SELECTORS[PROPOSE] in code:
            return True
        return False if SELECTORS["latestBlockNumber()"] in code else None


def _countable(value: int, name: str) -> int:
    """Refuse a number of blocks, outputs or seconds that the ledger cannot hold."""
    if value > MOST:
        raise bad("the contract's answer", name, value, "below 2^63")
    return value


async def together(*reads: Awaitable[Any]) -> list[Any]:
    """Await all at once; at the first error cancel the others and raise it alone."""
    tasks = [asyncio.ensure_future(read) for read in reads]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
