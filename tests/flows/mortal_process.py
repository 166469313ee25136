"""A proposer process of the crash machine, and the watch over what it asks and sends."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from blocks.ledger import leadership
from flows.context import Proposer
from proposer.ranges import BlockRange
from proposer.requests import Kind
from proposer.settings import ProposerSettings
from tests.flows.mortal import Died, Life, World
from tests.flows.mortal_ledger import MortalLedger, Turnstile
from tests.flows.outside_calls import MemoryL1, MemoryNode, MemoryOracle, MemoryServer
from tests.flows.outside_l1 import PaperSigner


class LedgerWatch:
    """What must hold at the moment something is asked or sent, judged from the ledger alone."""

    def __init__(self, process: "Process", engine: AsyncEngine, turnstile: Turnstile) -> None:
        self._process, self._engine, self._turnstile = process, engine, turnstile

    async def _rows(self, sql: str, **values: Any) -> Sequence[Any]:
        async with self._turnstile(), self._engine.connect() as connection:
            return (await connection.execute(text(sql), values)).all()

    async def _must_lead(self, what: str) -> None:
        (epoch,) = (await self._rows("SELECT epoch FROM leadership"))[0]
        if epoch != self._process.proposer.epoch:
            self.violation(f"{what} by a process that does not lead")

    def violation(self, sentence: str) -> None:
        """Remember what must never happen."""
        self._process.life.world.violations.append(sentence)

    async def broadcast(self, raw: bytes) -> None:
        """Every signed form is in the journal first, and only the leader sends."""
        await self._must_lead("a broadcast")
        if not await self._rows("SELECT 1 FROM l1_signed WHERE raw = :raw", raw=raw):
            self.violation("a broadcast of what is not in the journal")

    async def request(self, kind: Kind, over: BlockRange) -> None:
        """The claim is in the ledger first, and nothing is asked that is under way or proven already."""
        await self._must_lead(f"a request of {kind} {over}")
        same = {"kind": kind.value, "start": over.start, "end": over.end}
        where = "kind = :kind AND start_block = :start AND end_block = :end"
        rows = await self._rows(f"SELECT id, status FROM proof_requests WHERE {where}", **same)
        if not any(status == "WITNESSGEN" for _, status in rows):
            self.violation(f"{kind} {over} is asked without a claim in the ledger: {rows}")
        if any(status == "PROVING" or (status == "COMPLETE" and kind is Kind.RANGE) for _, status in rows):
            self.violation(f"{kind} {over} is asked although its proof is under way or there: {rows}")


class Process:
    """One process: a proposer of its own, over the shared ledger and outside."""

    def __init__(
        self,
        world: World,
        settings: ProposerSettings,
        engine: AsyncEngine,
        url: str,
        turnstile: Turnstile,
        name: str,
        log: Callable[[str], None],
    ) -> None:
        self.life = Life(name, world, log)
        watch = LedgerWatch(self, engine, turnstile)
        outside: dict[str, Any] = {
            "l1": MemoryL1(self.life, watch),
            "oracle": MemoryOracle(self.life),
            "node": MemoryNode(self.life),
            "server": MemoryServer(self.life, watch),
            "signer": PaperSigner(),
        }
        self.proposer = Proposer(
            name=name,
            settings=settings,
            ledger=MortalLedger(engine, url, self.life, turnstile),
            ledger_id="tests",
            epoch=0,
            still_leads=lambda: self.life.leads,
            **outside,
        )
        self.life.held = self.proposer.witnesses
        self._engine = engine

    async def lead(self) -> None:
        """Take the leadership: whoever had it is out of time."""
        async with self._engine.connect() as connection:
            await connection.execute(text("UPDATE leadership SET expires_at = now() - interval '1 second'"))
            await connection.commit()
            epoch = await leadership.take(connection, self.life.name)
            assert epoch is not None
            await connection.execute(text("UPDATE leadership SET expires_at = now() + interval '1 year'"))
            await connection.commit()
        self.proposer.epoch, self.life.leads = epoch, True

    async def rest(self) -> None:
        """Let its tasks go on until each of them waits for something outside."""
        self.life.changed.set()
        await asyncio.sleep(0)
        while busy := [t for t in self._tasks() if t not in self.life.waiting | self.life.stalled]:
            await asyncio.wait(busy, timeout=0.005, return_when=asyncio.FIRST_COMPLETED)

    def _tasks(self) -> "list[asyncio.Task[None]]":
        return [t for t in self.proposer.witnesses.values() if not t.done()]

    async def bury(self) -> None:
        """Be gone: nothing of it runs any more, and its requests are nobody's."""
        self.life.alive = self.life.leads = False
        self.life.changed.set()
        tasks = self._tasks()
        for post in self.life.world.prover.posts:
            if not post.asker_lives() and not post.answer.done():
                post.answer.set_exception(Died(self.life.name))
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=5)
            assert not left, left
        for task in tasks:
            task.exception()
