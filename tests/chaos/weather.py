"""What goes wrong all the time, at low rates, on every edge; and what goes wrong for a while, one at a time."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx

from infra.devnet import Fault, FaultPlan
from infra.devnet.rpc import RpcError
from tests.chaos.world import INTERVAL, RANGE, START, World

OUTAGES = ("node", "prover", "l1", "postgres", "frozen postgres", "prefect", "lost requests", "lost answers")

_PLAN = (
    # one culprit early: it is halved, and its halves are proven
    Fault(kind="unexecutable", on="range", block=START + 70, longer_than=RANGE // 2),
    Fault(kind="post_500", on="any", rate=0.02),
    Fault(kind="post_429", on="any", rate=0.01, seconds=2),
    Fault(kind="hang", on="any", rate=0.01, seconds=3),
    Fault(kind="drop_before_paying", on="any", rate=0.01),
    Fault(kind="drop_after_paying", on="any", rate=0.01),
    Fault(kind="refuse_simulation", on="aggregation", rate=0.01),
    Fault(kind="unfulfillable", on="any", rate=0.02),
    Fault(kind="late", on="any", rate=0.05, seconds=4),
    Fault(kind="empty_proof", on="any", rate=0.01),
    Fault(kind="status_500", on="any", rate=0.02),
    Fault(kind="status_429", on="any", rate=0.005, seconds=1),
    Fault(kind="garbage", on="any", rate=0.01),
    Fault(kind="slow_status", on="any", rate=0.02, seconds=1.5),
    Fault(kind="unknown_id", on="any", rate=0.005),
)


class Weather:
    """The faults of one run, and how many there were."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.happened: Counter[str] = Counter()

    def start(self) -> None:
        """Let everything fail now and then."""
        world, seed = self._world, self._world.options.seed
        world.devnet.prover.set_faults(FaultPlan(seed=seed, rules=_PLAN))
        for faults in (world.devnet.op_node.faults, world.devnet.l1_front.faults):
            faults.seed, faults.error_rate, faults.drop_rate = seed, 0.01, 0.01
            faults.slow_rate, faults.slow_s = 0.01, 0.7

    def lift(self) -> None:
        """End it: nothing fails any more."""
        world = self._world
        world.devnet.prover.set_faults(FaultPlan())
        for faults in (world.devnet.op_node.faults, world.devnet.l1_front.faults):
            faults.error_rate = faults.drop_rate = faults.slow_rate = 0.0

    @property
    def applied(self) -> Counter[str]:
        """Everything that was really applied, by the stand-ins' own counts and what this object did."""
        devnet = self._world.devnet
        counted = Counter(self.happened)
        for edge, kinds in (
            ("prover", devnet.prover.faults.applied),
            ("node", devnet.op_node.applied),
            ("l1", devnet.l1_front.applied),
        ):
            counted.update({f"{edge} {kind}": count for kind, count in kinds.items()})
        return counted

    async def outage(self, kind: str, seconds: float) -> None:
        """Take one part away for so long."""
        self.happened[f"outage {kind}"] += 1
        async with self._away(kind):
            await asyncio.sleep(seconds)

    @asynccontextmanager
    async def _away(self, kind: str) -> AsyncIterator[None]:
        world, front = self._world, self._world.devnet.l1_front.faults
        servers = {"node": world.devnet.op_node, "prover": world.devnet.prover, "l1": world.devnet.anvil}
        if kind in servers:
            await servers[kind].stop()
            try:
                yield
            finally:
                await servers[kind].start()
        elif kind == "postgres":
            await world.proxy.close()
            try:
                yield
            finally:
                await world.proxy.open()
        elif kind == "frozen postgres":
            with _between(world.proxy.freeze, world.proxy.thaw):
                yield
        elif kind == "prefect":
            await asyncio.to_thread(world.prefect.stop)
            try:
                yield
            finally:
                await asyncio.to_thread(world.prefect.start)
        else:
            front.lose_sends = "request" if kind == "lost requests" else "answer"
            try:
                yield
            finally:
                front.lose_sends = None

    async def reorg(self) -> None:
        """Replace the newest one or two L1 blocks by empty ones."""
        self.happened["l1 reorg"] += 1
        await self._world.devnet.anvil.reorg(self._world.dice.choice((1, 2)))

    async def competing_proposal(self) -> None:
        """Have somebody else propose a block that is in the middle of a range."""
        devnet = self._world.devnet

        async def propose() -> None:
            end = await devnet.latest_block_number() + INTERVAL + RANGE // 2
            await _finalized(self._world, end)
            await devnet.competing_proposal(end)

        await self._insist("competing proposal", propose)

    async def delete_outputs(self) -> None:
        """Have the challenger delete the newest output."""
        devnet = self._world.devnet

        async def delete() -> None:
            await devnet.delete_outputs(await devnet.read_uint("nextOutputIndex()") - 1)

        await self._insist("deletion of outputs", delete)

    async def _insist(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Act until it works: the proposer moves the head meanwhile, and then the contract refuses."""
        for _ in range(20):
            with contextlib.suppress(RpcError, httpx.HTTPError, TimeoutError):
                await act()
                self.happened[what] += 1
                return
        raise RuntimeError(f"{what} was refused twenty times")


@contextlib.contextmanager
def _between(begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()


async def _finalized(world: World, block: int) -> None:
    async with asyncio.timeout(60):
        while world.devnet.l2.finalized < block:  # noqa: ASYNC110  (a clock)
            await asyncio.sleep(0.1)
