"""Everything a chaos run happens in: devnet, PostgreSQL behind its proxy, Prefect's server, two proposers."""

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from infra.devnet import Devnet, DevnetConfig, ProverTiming
from infra.devnet.postgres_proxy import PostgresProxy
from infra.devnet.stack import Stack
from tests.acceptance.prefect_servers import SessionServer
from tests.chaos.pair import Pair
from tests.chaos.watch import Watch
from tests.postgres import Postgres

START, RANGE, INTERVAL = 1000, 20, 30
"""First L2 block, blocks of a range, and blocks between two outputs: with L2_SPEED an output is due every 6 s."""
L2_SPEED = 5.0
"""Finalized L2 blocks per second."""
READY_SECONDS = 60.0

SETTINGS = {
    "MAX_BLOCK_RANGE_PER_SPAN_PROOF": str(RANGE),
    "MAX_TAIL_WAIT": "5s",
    "NUM_CONFIRMATIONS": "3",
    "POLL_INTERVAL": "5s",
    "LOOK_INTERVAL": "1s",
    "RETRY_DELAY": "1s",
    "MAX_RETRY_DELAY": "4s",
    "WITNESS_GEN_TIMEOUT": "5s",
    "DRAIN_TIMEOUT": "5s",
    "RESUBMISSION_TIMEOUT": "6s",
}
"""Both proposers' settings: the default ones, on a devnet that is a hundred times faster."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run is asked for."""

    seed: int
    kills: int
    folder: Path
    limit_seconds: float


class World(Stack):
    """A running world; use as ``async with World(options) as world``."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.dice = random.Random(f"{options.seed}/chaos")
        self.began = time.monotonic()
        self.devnet: Devnet
        self.proxy: PostgresProxy
        self.prefect: SessionServer
        self.prefect_api: httpx.AsyncClient
        self.watch: Watch
        self.pair: Pair

    async def _start(self) -> None:
        folder = self.options.folder
        folder.mkdir(parents=True, exist_ok=True)
        database = self._stack.enter_context(Postgres(folder / "postgres")).url
        self.prefect = SessionServer(folder / "prefect-server")
        self._stack.push_async_callback(asyncio.to_thread, self.prefect.stop)
        server_starts = asyncio.create_task(asyncio.to_thread(self.prefect.start))
        self.devnet = await self._stack.enter_async_context(Devnet(self._devnet()))
        self.proxy = PostgresProxy.before(database, traps=self.devnet.traps)
        await self.proxy.open()
        self._stack.push_async_callback(self.proxy.close)
        await server_starts
        self.prefect_api = httpx.AsyncClient(base_url=self.prefect.api_url, timeout=5, trust_env=False)
        self._stack.push_async_callback(self.prefect_api.aclose)
        self.watch = await self._stack.enter_async_context(Watch(database))
        self.pair = Pair(folder, {name: self._environment(name) for name in ("one", "two")})
        self._stack.callback(self.pair.close)
        for instance in self.pair.instances:
            instance.start()
            await self._ready()  # one after the other: both would migrate the empty ledger

    def _devnet(self) -> DevnetConfig:
        return DevnetConfig(
            seed=self.options.seed,
            folder=self.options.folder,
            l1_block_time_s=0.5,
            starting_block=START,
            submission_interval=INTERVAL,
            l2_blocks_per_second=L2_SPEED,
            l2_initial_finalized=START + 4 * RANGE,
            timing=ProverTiming(
                range_witness_s=0.3, range_proving_s=1.0, agg_witness_s=0.3, agg_proving_s=0.8, jitter=0.3
            ),
        )

    def _environment(self, name: str) -> dict[str, str]:
        return {
            **self.devnet.env(),
            **SETTINGS,
            "DATABASE_URL": self.proxy.url("postgres", application=name),
            "PREFECT_API_URL": self.prefect.api_url,
        }

    async def _ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not all(each.ready for each in self.pair.instances if each.started_at):
            gone = [each for each in self.pair.instances if each.started_at and not each.running]
            if gone or time.monotonic() > deadline:
                said = "\n".join(each.up.output[-2000:] for each in self.pair.instances if each.started_at)
                raise RuntimeError(f"a proposer did not get ready within {READY_SECONDS:.0f} s:\n{said}")
            await asyncio.sleep(0.1)
