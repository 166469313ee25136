"""Start proposers one after the other on one Prefect server, and weigh the server while they work."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import psycopg

from infra.devnet import Devnet, DevnetConfig, ProverTiming
from proposer.units import ETHER
from tests.acceptance.helpers import Ledger, Prefect, Up, settled
from tests.fleet.imagined import imagine
from tests.fleet.postgres import SystemPostgres
from tests.fleet.server import CountingServer
from tests.postgres import Postgres

START, RANGE, INTERVAL = 1000, 50, 100
PROOFS_PER_OUTPUT = 3
SETTINGS = {
    "MAX_BLOCK_RANGE_PER_SPAN_PROOF": str(RANGE),
    "NUM_CONFIRMATIONS": "3",
    "DRAIN_TIMEOUT": "1s",
}
"""Every proposer's settings: the default ones, with short ranges."""
LOAD_SECONDS = 30.0
"""Within which the server loads automations that it is given past its API: it looks every five."""
STATEMENT = "SELECT pg_database_size('prefect')"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be measured."""

    folder: Path
    sizes: tuple[int, ...]
    seconds: float
    standby: bool
    l2_speed: float
    """Finalized L2 blocks per second of each rollup."""
    poll_interval: str
    query_seconds: str
    imagined: int
    """How many more rollups' automations the server has to evaluate."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """What had been used at one moment: CPU seconds, calls, bytes."""

    at: float
    server_cpu: float
    postgres_cpu: float
    proposer_cpu: float
    calls: int
    database_bytes: int


@dataclass(kw_only=True)
class Sample:
    """A fleet of one size over its time."""

    proposers: int
    seconds: float
    server_cpu: float
    postgres_cpu: float
    proposer_cpu: float
    calls: int
    database_bytes: int
    cycles: int
    outputs: int
    settled_by_each: bool
    """Whether every rollup settled at least one output meanwhile."""
    server_rss: int
    proposer_rss: int
    """Of the largest proposer process."""
    stood_still: float
    """Seconds for which the server did not answer while it loaded imagined rollups' automations."""
    start_delays: list[float] = field(default_factory=list[float])
    """Seconds from the moment a cycle was due, or created, to its start."""


async def measure(options: Options) -> list[Sample]:
    """Measure each size in turn, on the same server; every rollup goes on working in the larger fleets."""
    options.folder.chmod(0o711)
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(SystemPostgres(options.folder))
        server = stack.enter_context(CountingServer(options.folder, postgres.url))
        fleet = await stack.enter_async_context(Fleet(options, server, postgres))
        samples: list[Sample] = []
        stood_still = 0.0
        for size in options.sizes:
            await fleet.grow(size)
            if options.imagined and not samples:
                imagine(postgres.plain_url, "rollup-0", options.imagined)
                stood_still = await _longest_answer(server.api_url, LOAD_SECONDS)
            samples.append(await fleet.sample(stood_still))
        return samples


class Fleet:
    """Rollups, each a devnet, a ledger and a proposer; use as an async context manager."""

    def __init__(self, options: Options, server: CountingServer, postgres: SystemPostgres) -> None:
        self._options, self._server, self._postgres = options, server, postgres
        self._devnets: list[Devnet] = []
        self._ups: list[Up] = []
        self._ledgers: list[Ledger] = []
        self._prefect = Prefect(server.api_url)
        self._databases: Postgres
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the PostgreSQL of all ledgers."""
        self._stack.push_async_callback(self._prefect.aclose)
        self._databases = self._stack.enter_context(Postgres(self._options.folder / "ledgers"))
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop every proposer and everything they work with."""
        for up in self._ups:
            up.kill()
        await self._stack.aclose()

    async def grow(self, size: int) -> None:
        """Start rollups until there are so many, and wait until each has settled its first output."""
        first = len(self._devnets)
        for number in range(first, size):
            devnet = await self._devnet(number)
            ledger = self._ledger(number)
            for role in ("active", "standby") if self._options.standby else ("active",):
                environment = {
                    **devnet.env(),
                    **SETTINGS,
                    "POLL_INTERVAL": self._options.poll_interval,
                    "PREFECT_WORKER_QUERY_SECONDS": self._options.query_seconds,
                    "PROPOSER_NAME": f"rollup-{number}",
                    "DATABASE_URL": ledger.url,
                    "PREFECT_API_URL": self._server.api_url,
                }
                up = Up(self._options.folder / f"rollup-{number}-{role}", environment)
                self._ups.append(up.start())
                await up.says("leading with epoch" if role == "active" else "standing by")
        for devnet in self._devnets[first:]:
            await settled(devnet, START + INTERVAL, seconds=120)

    async def _devnet(self, number: int) -> Devnet:
        config = DevnetConfig(
            seed=self._options.seed + number,
            l1_block_time_s=2.0,
            starting_block=START,
            submission_interval=INTERVAL,
            l2_blocks_per_second=self._options.l2_speed,
            l2_initial_finalized=START + INTERVAL,
            l2_chain_id=901 + number,
            proposer_account=1 if number == 0 else 3 + number,  # 2 and 3 are the devnet's challenger and competitor
            timing=ProverTiming(2.0, 5.0, 1.0, 3.0, jitter=0.3),
        )
        beside = self._devnets[0] if self._devnets else None  # all rollups of a fleet settle on one L1
        devnet = await self._stack.enter_async_context(Devnet(config, beside=beside))
        await devnet.l1.call("anvil_setBalance", devnet.proposer_address, hex(1_000 * ETHER))
        self._devnets.append(devnet)
        return devnet

    def _ledger(self, number: int) -> Ledger:
        ledger = Ledger(self._databases.create(f"rollup_{number}"))
        self._ledgers.append(ledger)
        return ledger

    async def sample(self, stood_still: float) -> Sample:
        """Weigh everything over the time asked for."""
        heads = await self._heads()
        known = {run["id"] for run in await self._prefect.cycles()}
        before = self._load()
        await asyncio.sleep(self._options.seconds)
        after = self._load()
        grown = [now - then for now, then in zip(await self._heads(), heads, strict=True)]
        cycles = [run for run in await self._prefect.cycles() if run["id"] not in known]
        processes = [psutil.Process(up.process.pid) for up in self._ups]
        return Sample(
            proposers=len(self._devnets),
            seconds=after.at - before.at,
            server_cpu=after.server_cpu - before.server_cpu,
            postgres_cpu=after.postgres_cpu - before.postgres_cpu,
            proposer_cpu=after.proposer_cpu - before.proposer_cpu,
            calls=after.calls - before.calls,
            database_bytes=after.database_bytes - before.database_bytes,
            cycles=len(cycles),
            outputs=sum(grown) // INTERVAL,
            settled_by_each=all(blocks > 0 for blocks in grown),
            server_rss=psutil.Process(self._server.pid).memory_info().rss,
            proposer_rss=max(process.memory_info().rss for process in processes),
            stood_still=stood_still,
            start_delays=[delay for run in cycles if (delay := _start_delay(run)) is not None],
        )

    async def _heads(self) -> list[int]:
        return [await devnet.latest_block_number() for devnet in self._devnets]

    def _load(self) -> Load:
        with psycopg.connect(self._postgres.plain_url, autocommit=True) as connection:
            row = connection.execute(STATEMENT).fetchone()
        assert row is not None
        return Load(
            at=time.monotonic(),
            server_cpu=_cpu(self._server.pid),
            postgres_cpu=_cpu(self._postgres.pid),
            proposer_cpu=sum(_cpu(up.process.pid) for up in self._ups),
            calls=self._server.calls(),
            database_bytes=row[0],
        )


async def _longest_answer(api_url: str, seconds: float) -> float:
    """Ask the server whether it is there, again and again, and return the longest time that an answer took."""
    longest, until = 0.0, time.monotonic() + seconds
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        while (asked := time.monotonic()) < until:
            (await client.get(f"{api_url}/health")).raise_for_status()
            longest = max(longest, time.monotonic() - asked)
            await asyncio.sleep(0.1)
    return longest


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process, of its living children, and of those it has reaped."""
    root = psutil.Process(pid)
    times = root.cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    for child in root.children(recursive=True):
        try:
            its = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += its.user + its.system
    return used


def _start_delay(run: dict[str, Any]) -> float | None:
    """Return how long a cycle waited for its start; None for one that was skipped or has not started."""
    if run["start_time"] is None or run["state"]["name"] == "Skipped":
        return None
    seconds: float = run["estimated_start_time_delta"]
    return seconds
