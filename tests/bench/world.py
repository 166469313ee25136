"""What every measurement happens in: PostgreSQL, Prefect's server, devnets, and real `proposer up` processes."""

import asyncio
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from infra.devnet import Devnet, DevnetConfig
from infra.devnet.stack import Stack
from tests.acceptance.helpers import Ledger, Prefect, Up
from tests.acceptance.prefect_servers import SessionServer
from tests.postgres import Postgres

Look = Callable[[], Awaitable[bool]]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Watched(Up):
    """A real `proposer up` with a watch in it, and what the system counts of its process."""

    def __init__(self, home: Path, environment: dict[str, str], prefect_port: int) -> None:
        self.watch_file = home.with_name(home.name + ".watch")
        super().__init__(home, environment, "tests.bench.watched", str(self.watch_file), str(prefect_port))

    def cpu_seconds(self) -> float:
        """CPU time it has used so far, its own and the system's for it."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS_PER_SECOND

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Its resident memory now (VmRSS) or at its peak (VmHWM), in units of 10^6 bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(what + ":"))

    def watch(self) -> list[dict[str, Any]]:
        """Return the lines of the watch."""
        if not self.watch_file.exists():
            return []
        return [json.loads(line) for line in self.watch_file.read_text(encoding="utf-8").splitlines(keepends=False)]

    def prefect_calls(self) -> Counter[str]:
        """Return the calls made to Prefect's API so far."""
        lines = self.watch()
        return Counter(lines[-1]["prefect"]) if lines else Counter()

    def stood_still(self, since: float) -> float:
        """Return the longest time its event loop stood still after an instant of `time.time`, in seconds."""
        return max((line["stood_still"] for line in self.watch() if line["at"] > since), default=0.0)


class World(Stack):
    """A running world; use as ``async with World(folder, seed) as world``."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__()
        self.folder, self.seed = folder, seed
        self.prefect: SessionServer
        self.api: Prefect
        self._postgres: Postgres
        self._databases = 0

    async def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._postgres = self._stack.enter_context(Postgres(self.folder / "postgres"))
        self.prefect = SessionServer(self.folder / "prefect-server")
        self._stack.push_async_callback(asyncio.to_thread, self.prefect.stop)
        starting = asyncio.create_task(asyncio.to_thread(self.prefect.start))
        await starting
        self.api = Prefect(self.prefect.api_url)
        self._stack.push_async_callback(self.api.aclose)

    def ledger(self) -> Ledger:
        """Create an empty database and return it; the first proposer of it makes it a ledger."""
        self._databases += 1
        return Ledger(self._postgres.create(f"bench_{self._databases}"))

    def devnet(self, **config: Any) -> Devnet:
        """Describe a devnet of this run's seed."""
        return Devnet(DevnetConfig(seed=self.seed, **config))

    def up(self, name: str, devnet: Devnet, ledger: Ledger, **settings: str) -> Watched:
        """Start a real `proposer up`; killed at the end if it still runs."""
        environment = {
            **devnet.env(),
            "DATABASE_URL": ledger.url,
            "PREFECT_API_URL": self.prefect.api_url,
            **settings,
        }
        one = Watched(self.folder / name, environment, self.prefect.port)
        self._stack.callback(one.kill)
        one.start()
        return one

    def prefect_bytes(self) -> int:
        """Bytes in use in Prefect's database, SQLite: its pages but for the free ones."""
        file = self.folder / "prefect-server" / "prefect" / "prefect.db"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            size, many, free = (
                connection.execute(f"PRAGMA {what}").fetchone()[0]
                for what in ("page_size", "page_count", "freelist_count")
            )
        return size * (many - free)


async def until(what: str, seconds: float, up: Up | None, look: Look, every: float = 0.05) -> None:
    """Wait until `look` says yes; fail after the deadline, or when the process ends, with what it said."""
    deadline = time.monotonic() + seconds
    while not await look():
        if (up is not None and up.returncode is not None) or time.monotonic() > deadline:
            said = f"; the proposer said:\n{up.output[-2000:]}" if up is not None else ""
            raise RuntimeError(f"not within {seconds:.0f} s: {what}{said}")
        await asyncio.sleep(every)
