"""An L1 in memory: blocks with hashes, a contract, a mempool by nonce, receipts, and reorgs. Honest, and scriptable.

What is read and sent goes through `Chain`; `tests.flows.mortal` puts a process that may die in front of it.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

import orjson
from eth_abi.abi import decode

from blocks.l1 import Sent
from blocks.output_oracle import CHECKPOINT, PROPOSE, SELECTORS, Output
from proposer.errors import ChainMoved, Reverted
from proposer.l1_transactions import Receipt
from proposer.snapshot import Anchor, OracleView
from proposer.units import ETHER, GWEI, L1Block, L1Ref, L2Block, Wei
from tests.proposer.samples import OURS

ADDRESS = "0x" + "22" * 20
SENDER = "0x" + "11" * 20
FIRST_BLOCK = 1000
WINDOW = 256
DEEPEST_REORG = 3
FINALIZATION_SECONDS = 7200


def digest(*parts: object) -> bytes:
    """32 bytes that name these parts."""
    return sha256(repr(parts).encode()).digest()


def root_of(block: int) -> bytes:
    """The output root of an L2 block."""
    return digest("root", block)


def aggregation_proof(head: bytes, pre_root: bytes, root: bytes, block: int) -> bytes:
    """The one proof that the contract takes for exactly this statement."""
    return b"aggregation" + digest(head, pre_root, root, block)


@dataclass(frozen=True)
class Tx:
    """A signed transaction of the proposer's account."""

    hash: bytes
    nonce: int
    to: str
    data: bytes
    cap: int
    tip: int

    @property
    def what(self) -> str:
        """What it does, in words."""
        if self.data[:4] == SELECTORS[CHECKPOINT]:
            return f"checkpoint {int.from_bytes(self.data[4:36])}"
        if self.data[:4] == SELECTORS[PROPOSE]:
            return f"propose {int.from_bytes(self.data[36:68])}"
        return "nothing"


class PaperSigner:
    """Signs at no cost: the raw bytes are the transaction itself."""

    address = SENDER
    setting = "PRIVATE_KEY"

    async def check(self) -> None:
        """It always signs."""

    async def aclose(self) -> None:
        """It holds no connection."""

    async def sign(self, tx: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Return the hash and the bytes of a transaction."""
        raw = orjson.dumps({name: v.hex() if isinstance(v, bytes) else v for name, v in sorted(tx.items())})
        return sha256(raw).digest(), raw


def _unsign(raw: bytes) -> Tx:
    tx = orjson.loads(raw)
    return Tx(
        sha256(raw).digest(),
        tx["nonce"],
        tx["to"],
        bytes.fromhex(tx["data"]),
        tx["maxFeePerGas"],
        tx["maxPriorityFeePerGas"],
    )


@dataclass(frozen=True)
class State:
    """The contract and the proposer's nonce after a block."""

    outputs: tuple[tuple[int, float], ...] = ((0, 0.0),)
    """(L2 block, time) of each output."""
    stored: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
    nonce: int = 0

    @property
    def head(self) -> int:
        """The latest output's L2 block."""
        return self.outputs[-1][0]


@dataclass(frozen=True)
class Mined:
    """A block, the state after it, and what of ours is in it."""

    ref: L1Ref
    at: float
    state: State
    ours: tuple[tuple[Tx, bool], ...] = ()


class Chain:
    """The one truth about L1. `moves` counts what nobody can foresee: competitors, deletions and reorgs."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.clock = 0.0
        self.moves = 0
        self.pool: dict[int, Tx] = {}
        self.foreign: list[Callable[[State, float], State | None]] = []
        self.first_seen: dict[bytes, int] = {}
        """Every hash ever broadcast, with `moves` at that time."""
        self.needless_reverts: list[str] = []
        self._salt = itertools.count()
        self.blocks = [self._block(FIRST_BLOCK, State())]
        self.mine(5)

    # -- what happens

    @property
    def newest(self) -> Mined:
        """The canonical head."""
        return self.blocks[-1]

    @property
    def state(self) -> State:
        """The state at the head."""
        return self.newest.state

    def _block(self, number: int, state: State, ours: tuple[tuple[Tx, bool], ...] = ()) -> Mined:
        named = digest("block", number, next(self._salt))
        return Mined(L1Ref(L1Block(number), named, 0), self.clock, state, ours)

    def mine(self, blocks: int, *, including: bool = True) -> None:
        """Add blocks, with what waits or without it (too cheap)."""
        for _ in range(blocks):
            number, state = self.newest.ref.number + 1, self.state
            ours: list[tuple[Tx, bool]] = []
            if including:
                for act in self.foreign:  # it outbids ours, which may have been simulated before
                    self.moves += 1
                    state = act(state, self.clock) or state
                self.foreign.clear()
                while (tx := self.pool.pop(state.nonce, None)) is not None:
                    after = self._apply(state, tx.to, tx.data, number)
                    if isinstance(after, str):
                        self._judge(tx, after, number)
                        after = state
                    ours.append((tx, after is not state))
                    state = replace(after, nonce=state.nonce + 1)
            self.pool = {nonce: tx for nonce, tx in self.pool.items() if nonce >= state.nonce}
            self.blocks.append(self._block(number, state, tuple(ours)))

    def _judge(self, tx: Tx, revert: str, number: int) -> None:
        """A revert is excused only where something moved after the simulation."""
        if self.first_seen[tx.hash] == self.moves:
            self.needless_reverts.append(f"{tx.what} (nonce {tx.nonce}) reverts in L1 block {number}: {revert}")

    def reorg(self, depth: int, *, keep: bool, including: bool) -> None:
        """Replace the newest blocks; what was in them goes back to the mempool, or is lost."""
        self.moves += 1
        dropped, self.blocks = self.blocks[-depth:], self.blocks[:-depth]
        if keep:
            self.pool = {tx.nonce: tx for block in dropped for tx, _ in block.ours} | self.pool
        self.mine(1, including=including)
        self.mine(depth)

    def someone_proposes(self, block: int) -> None:
        """A competitor's output, in the next block that takes transactions."""
        self.foreign.append(
            lambda state, at: (
                replace(state, outputs=(*state.outputs, (block, at))) if block >= state.head + self.interval else None
            )
        )

    def deletable(self) -> list[int]:
        """Indices from which outputs may be deleted: not the first, and none that is final."""
        outputs = self.state.outputs
        return [i for i in range(1, len(outputs)) if self.clock - outputs[i][1] < FINALIZATION_SECONDS]

    def delete_outputs(self, index: int) -> None:
        """`deleteL2Outputs`, in the next block that takes transactions."""
        self.foreign.append(
            lambda state, at: replace(state, outputs=state.outputs[:index]) if index < len(state.outputs) else None
        )

    def _apply(self, state: State, to: str, data: bytes, number: int) -> State | str:
        """Execute a call in block `number`: the state after it, or the revert's name."""
        if to != ADDRESS or not data:
            return replace(state)
        if data[:4] == SELECTORS[CHECKPOINT]:
            wanted = int.from_bytes(data[4:36])
            if wanted >= number or wanted + WINDOW < number or wanted < FIRST_BLOCK:
                return "L1BlockHashNotAvailable()"
            return replace(state, stored={**state.stored, wanted: self.at(wanted).ref.hash})
        assert data[:4] == SELECTORS[PROPOSE], data[:4].hex()
        root, block, anchor, proof = decode(["bytes32", "uint256", "uint256", "bytes"], data[4:])
        if block < state.head + self.interval:
            return "L2OutputOracle: block number must be greater than or equal to next expected block number"
        if anchor not in state.stored:
            return "L1BlockHashNotCheckpointed()"
        if proof != aggregation_proof(state.stored[anchor], root_of(state.head), root, block):
            return "ProofInvalid()"
        return replace(state, outputs=(*state.outputs, (block, self.clock)))

    # -- what a node says

    def at(self, number: int) -> Mined:
        """The canonical block of this number."""
        return self.blocks[number - FIRST_BLOCK]

    def ref(self, block: Mined) -> L1Ref:
        """A block as it is read, with its time on the real clock."""
        return replace(block.ref, timestamp=int(time.time() - (self.clock - block.at)))

    def pinned(self, at: L1Ref | None) -> Mined:
        """The block a read is pinned to. Raises `ChainMoved`."""
        if at is None:
            return self.newest
        if at.number <= self.newest.ref.number and self.at(at.number).ref.hash == at.hash:
            return self.at(at.number)
        raise ChainMoved(f"L1 block {at.number} is no longer canonical")

    def block(self, which: int | Literal["latest", "safe", "finalized"]) -> L1Ref | None:
        """A block by number or tag."""
        top = self.newest.ref.number
        lag = {"latest": 0, "safe": 2, "finalized": DEEPEST_REORG + 1}
        number = which if isinstance(which, int) else top - lag[which]
        return self.ref(self.at(number)) if FIRST_BLOCK <= number <= top else None

    def ours(self) -> list[tuple[Tx, bool, Mined]]:
        """The proposer's mined transactions on the canonical chain."""
        return [(tx, succeeded, block) for block in self.blocks for tx, succeeded in block.ours]

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """The receipt of a mined transaction."""
        for tx, succeeded, block in self.ours():
            if tx.hash == tx_hash:
                return Receipt(tx.hash, block.ref.number, block.ref.hash, succeeded, 50_000)
        return None

    def knows(self, tx_hash: bytes) -> bool:
        """Whether it is in the mempool or mined."""
        return any(tx.hash == tx_hash for tx in self.pool.values()) or self.receipt(tx_hash) is not None

    def estimate(self, to: str, data: bytes) -> int:
        """Simulate in the next block. Raises `Reverted`."""
        after = self._apply(self.state, to, data, self.newest.ref.number + 1)
        if isinstance(after, str):
            raise Reverted(after)
        return 50_000

    def call(self, to: str, data: bytes, at: L1Ref | None) -> bytes:
        """Execute a call in the state after a block, as `eth_call` does. Raises `Reverted`."""
        block = self.pinned(at)
        after = self._apply(block.state, to, data, block.ref.number)
        if isinstance(after, str):
            raise Reverted(after)
        return b""

    def send(self, raw: bytes) -> Sent:
        """Take a transaction into the mempool, as a node does."""
        tx = _unsign(raw)
        self.first_seen.setdefault(tx.hash, self.moves)
        waiting = self.pool.get(tx.nonce)
        if tx.nonce < self.state.nonce:
            return Sent.NONCE_TOO_LOW
        if waiting is not None and waiting.hash == tx.hash:
            return Sent.ALREADY_KNOWN
        if waiting is not None and (tx.cap * 10 < waiting.cap * 11 or tx.tip * 10 < waiting.tip * 11):
            return Sent.UNDERPRICED
        self.pool[tx.nonce] = tx
        return Sent.ACCEPTED

    def fees(self) -> tuple[Wei, Wei]:
        """Suggested tip and base fee."""
        return Wei(GWEI), Wei(GWEI)

    # -- what the contract says

    def view(self, at: L1Ref, anchors: Sequence[int]) -> OracleView:
        """Everything a decision needs, at one block."""
        state, safe = self.pinned(at).state, self.block("safe")
        on_chain = {number: self.block(number) for number in anchors}
        return OracleView(
            at=at,
            safe=safe.number if safe else None,
            latest_block=L2Block(state.head),
            latest_root=root_of(state.head),
            submission_interval=self.interval,
            commitments=OURS,
            optimistic=False,
            approved=True,
            finalization_period=FINALIZATION_SECONDS,
            balance=Wei(ETHER),
            anchors={n: Anchor(state.stored.get(n), ref.hash if ref else None) for n, ref in on_chain.items()},
        )

    def output(self, index: int, at: L1Ref | None) -> Output:
        """A stored output."""
        block, _ = self.pinned(at).state.outputs[index]
        return Output(root_of(block), 0, L2Block(block))
