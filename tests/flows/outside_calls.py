"""The blocks of a proposer over an outside in memory: the public methods that stages and flows call, and no others."""

import asyncio
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from blocks.l1 import Sent
from blocks.op_node import SyncStatus
from blocks.output_oracle import Output
from blocks.prover import Accepted, MockProven
from blocks.rpc import RpcError
from proposer.l1_transactions import Receipt
from proposer.polling import ProofStatus
from proposer.ranges import BlockRange
from proposer.requests import Kind
from proposer.snapshot import OracleView, ServerView
from proposer.units import L1Ref, L2Block, Wei
from tests.flows.mortal import Family, Life
from tests.flows.outside_l1 import ADDRESS, root_of
from tests.flows.outside_prover import members_span

T = TypeVar("T")


class Watch(Protocol):
    """Judges what is asked or sent at the moment it would be."""

    async def broadcast(self, raw: bytes) -> None:
        """A transaction is about to be sent."""
        ...

    async def request(self, kind: Kind, over: BlockRange) -> None:
        """A proof is about to be asked for."""
        ...


class MemoryL1:
    """`blocks.l1.L1Chain` over a chain in memory."""

    def __init__(self, life: Life, watch: Watch) -> None:
        self._life, self._chain, self._watch = life, life.world.chain, watch

    async def _read(self, what: str, effect: Callable[[], T]) -> T:
        return await self._life.act("l1", what, effect)

    async def chain_id(self) -> int:
        return 1

    async def head(self) -> L1Ref:
        return await self._read("read the head", lambda: self._chain.ref(self._chain.newest))

    async def block(self, which: Any) -> L1Ref | None:
        return await self._read(f"read block {which}", lambda: self._chain.block(which))

    async def balance(self, address: str, at: L1Ref | None = None) -> Wei:
        return await self._read("read the balance", lambda: Wei(10**18))

    async def nonce(self, address: str, at: Any = "latest") -> int:
        pinned = None if isinstance(at, str) else at
        pooled = len(self._chain.pool) if at == "pending" else 0
        return await self._read("read the nonce", lambda: self._chain.pinned(pinned).state.nonce + pooled)

    async def receipt(self, hash_: bytes) -> Receipt | None:
        return await self._read("read a receipt", lambda: self._chain.receipt(hash_))

    async def knows(self, hash_: bytes) -> bool:
        return await self._read("read a transaction", lambda: self._chain.knows(hash_))

    async def call(self, to: str, data_: bytes, at: L1Ref | None = None, sender: str | None = None) -> bytes:
        return await self._read("call", lambda: self._chain.call(to, data_, at))

    async def estimate_gas(self, tx: Any) -> int:
        return await self._read("simulate", lambda: self._chain.estimate(tx["to"], tx["data"]))

    async def fee_suggestion(self) -> tuple[Wei, Wei]:
        return await self._read("read the fees", self._chain.fees)

    async def send_raw(self, raw: bytes) -> Sent:
        self._life.must_live()
        await self._watch.broadcast(raw)
        return await self._life.act("l1", "broadcast", lambda: self._chain.send(raw), Family.SEND, lost=True)


class MemoryOracle:
    """`blocks.output_oracle.L2OutputOracle` over a chain in memory."""

    address = ADDRESS

    def __init__(self, life: Life) -> None:
        self._life, self._chain = life, life.world.chain

    async def view(self, l1: Any, at: L1Ref, proposer_address: str | None, anchors: Sequence[int] = ()) -> OracleView:
        return await self._life.act("l1", "read the contract", lambda: self._chain.view(at, anchors))

    async def historic_hash(self, l1: Any, number: int, at: L1Ref | None = None) -> bytes | None:
        pinned = self._chain.pinned
        return await self._life.act("l1", "read a checkpoint", lambda: pinned(at).state.stored.get(number))

    async def output_at(self, l1: Any, index: int, at: L1Ref | None = None) -> Output:
        return await self._life.act("l1", "read an output", lambda: self._chain.output(index, at))


class MemoryNode:
    """`blocks.op_node.OpNode` over an L2 that never forks."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def sync_status(self) -> SyncStatus:
        heads = self._life.world.finalized
        return await self._life.act("node", "read the heads", lambda: SyncStatus(L2Block(heads), L2Block(heads + 50)))

    async def output_root(self, number: int) -> bytes:
        def root() -> bytes:
            if number > self._life.world.finalized + 50:
                raise RpcError("node", -32000, "not found")
            return root_of(number)

        return await self._life.act("node", "read an output root", root)


class MemoryServer:
    """`blocks.prover.SuccinctServer` over a prover in memory; requests wait until the test answers them."""

    mock = False

    def __init__(self, life: Life, watch: Watch) -> None:
        self._life, self._prover, self._watch = life, life.world.prover, watch

    async def validate_config(self, address: str) -> ServerView:
        return await self._life.act("server", "validate the config", lambda: ServerView(True, True, True))

    async def request_range(self, range_: BlockRange, timeout_seconds: float) -> Accepted | MockProven:
        return await self._ask(Kind.RANGE, range_, (), None)

    async def request_aggregation(
        self, lengths: Sequence[int], subproofs: AsyncIterable[bytes], head: bytes, timeout_seconds: float
    ) -> Accepted | MockProven:
        read = [proof async for proof in subproofs]
        assert [len(proof) for proof in read] == lengths
        return await self._ask(Kind.AGG, members_span(read), read, head)

    async def _ask(
        self, kind: Kind, over: BlockRange, subproofs: Sequence[bytes], head: bytes | None
    ) -> Accepted | MockProven:
        life = self._life
        life.must_live()
        await self._watch.request(kind, over)
        arrive = self._prover.arrive
        post = await life.act(
            "server",
            f"request {kind} {over}",
            lambda: arrive(kind, over, subproofs, head, lambda: life.alive),
            Family.SEND,
            lost=True,
        )
        life.waiting.add(asyncio.current_task())
        try:
            answer = await post.answer
        finally:
            life.waiting.discard(asyncio.current_task())
        assert isinstance(answer, Accepted)
        life.told.add(answer.prover_id)
        return answer

    async def status(self, prover_id: str) -> ProofStatus:
        return await self._life.act("server", "look at a proof", lambda: self._prover.status(prover_id))
