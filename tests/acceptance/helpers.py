"""What the acceptance tests see with: Prefect's API over HTTP, the ledger's rows, a real `proposer up`, deadlines."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psycopg
from psycopg.rows import dict_row

from infra.devnet import Devnet, Report, check
from infra.devnet.traps import Traps

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
T = TypeVar("T")

PATIENCE = 120.0
"""Seconds to wait for what has to happen and whose time is not promised: a busy machine is no failure."""

QUICK = {
    "MAX_BLOCK_RANGE_PER_SPAN_PROOF": "50",
    "NUM_CONFIRMATIONS": "2",
    "POLL_INTERVAL": "3s",
    "RETRY_DELAY": "1s",
    "WITNESS_GEN_TIMEOUT": "20s",
    "DRAIN_TIMEOUT": "5s",
    "LOOK_INTERVAL": "1s",
}
"""The proposer's settings on a fast devnet."""


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def plain_environment(home: Path) -> dict[str, str]:
    """Return what every child process gets: nothing of the developer's own settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "COLUMNS": "300",
        "PREFECT_HOME": str(home / "prefect-client"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


async def eventually(
    what: str,
    look: Callable[[], Awaitable[T]],
    *,
    seconds: float = PATIENCE,
    every: float = 0.15,
    alive: "Up | None" = None,
) -> T:
    """Return what `look` returns as soon as that is true; fail after the deadline, or when `alive` has ended."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if seen:
            return seen
        if alive is not None and alive.returncode is not None:
            raise AssertionError(f"the proposer ended with {alive.returncode} while waiting for: {what}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {seen!r}")
        await asyncio.sleep(every)


class Up:
    """One `proposer up` as a real process; its output goes to a file beside its home.

    `module` is what Python runs instead, with its arguments.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], *module: str) -> None:
        self.home = home
        self._module = module or ("deployments.cli", "up")
        self.environment = {**plain_environment(home), **environment, "PROPOSER_HOME": str(home)}
        self.output_file = home.with_name(home.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process (again)."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.output_file.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._module],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process started last."""
        assert self._process is not None
        return self._process

    @property
    def output(self) -> str:
        """Everything it has said, over all its starts."""
        return self.output_file.read_text(encoding="utf-8", errors="replace")

    @property
    def returncode(self) -> int | None:
        """How it ended, or None."""
        return self.process.poll()

    async def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for its end."""
        return await asyncio.to_thread(self.process.wait, seconds)

    async def terminate(self, seconds: float = PATIENCE) -> int:
        """Send SIGTERM and wait for the end."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended(seconds)

    def kill(self) -> None:
        """Send SIGKILL and reap it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    async def says(self, text: str) -> None:
        """Wait until the text is in the output."""

        async def look() -> bool:
            return text in self.output

        await eventually(f"{text!r} in the output", look, alive=self)


class Hold:
    """Exchanges with a stand-in that are stopped on their way, at a place of the devnet's traps, until let go.

    All of this kind are, also the one that a caller out of patience begins anew. What the first of two Holds at a place
    does not want passes the second as well.
    """

    def __init__(self, traps: Traps, place: str, **wanted: Any) -> None:
        self._traps = traps
        self._place = place
        self._wanted = wanted
        self._reached, self._gone_on = asyncio.Event(), asyncio.Event()
        self._waiting = traps.arm(place, self._stand)

    async def reached(self) -> None:
        """Wait until an exchange stands there."""
        try:
            await asyncio.wait_for(self._reached.wait(), PATIENCE)
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE:g} s: {self._place} {self._wanted}") from None

    def let_go(self) -> None:
        """Let them go on, and stop no other."""
        self._gone_on.set()
        self._waiting.disarm()

    async def _stand(self, facts: Mapping[str, Any]) -> bool:
        if any(facts.get(name) != value for name, value in self._wanted.items()):
            return False
        self._waiting = self._traps.arm(self._place, self._stand)  # for the next: this one takes no other meanwhile
        self._reached.set()
        await self._gone_on.wait()
        return True


class Ledger:
    """The ledger's rows, read beside the proposer."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, sql: str, *values: Any) -> list[Row]:
        """Run a query."""
        with psycopg.connect(self.url, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]

    def requests(self, where: str = "true") -> list[Row]:
        """Return the proof requests, oldest first."""
        return self.query(f"SELECT * FROM proof_requests WHERE {where} ORDER BY id")

    async def having(self, where: str, *, at_least: int = 1, alive: Up | None = None) -> list[Row]:
        """Wait until so many requests satisfy a condition; return them."""

        async def look() -> list[Row]:
            rows = self.requests(where)
            return rows if len(rows) >= at_least else []

        return await eventually(f"{at_least} requests where {where}", look, alive=alive)

    async def at_rest(self, up: Up) -> None:
        """Wait until nothing is under way: every transaction is confirmed, every request settled or ended."""

        async def look() -> bool:
            moving = self.query(
                "SELECT status FROM proof_requests WHERE status IN ('UNREQ', 'WITNESSGEN', 'PROVING', 'COMPLETE') "
                "UNION ALL SELECT status FROM l1_transactions WHERE status IN ('PENDING', 'MINED')"
            )
            return not moving

        await eventually("the ledger is at rest", look, alive=up)

    def history(self, request: int) -> list[str]:
        """Return the statuses a request went through, without repeats."""
        rows = self.query("SELECT to_status FROM request_events WHERE request_id = %s ORDER BY id", request)
        words = [row["to_status"] for row in rows]
        return [word for i, word in enumerate(words) if i == 0 or words[i - 1] != word]

    def last_event(self) -> int:
        """Return the newest event's id."""
        (row,) = self.query("SELECT coalesce(max(id), 0) AS last FROM request_events")
        last: int = row["last"]
        return last


def shown_as(row: Row) -> str:
    """Say what state Prefect has to show for a row of the ledger."""
    fixed = {
        "UNREQ": "PENDING/Unrequested",
        "WITNESSGEN": "RUNNING/WitnessGen",
        "PROVING": "RUNNING/Proving",
        "COMPLETE": "COMPLETED/Complete",
        "RELAYED": "COMPLETED/Complete",
        "FAILED": f"FAILED/{row['failure']}",
        "PARKED": "FAILED/Parked",
        "CANCELLED": "CANCELLED/Superseded",
    }
    if row["status"] == "PARKED" and row["failure"] == "CancelledByOperator":
        return "CANCELLED/CancelledByOperator"
    return fixed[row["status"]]


class Prefect:
    """What Prefect's API shows, read over plain HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, path: str, body: Any = None) -> Any:
        """POST and return the answer."""
        answer = await self._client.post(path, json=body or {})
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def get(self, path: str) -> Any:
        """GET and return the answer."""
        answer = await self._client.get(path)
        answer.raise_for_status()
        return answer.json()

    async def all(self, path: str, body: Mapping[str, Any] | None = None) -> list[Row]:
        """Return every page of a filter."""
        found: list[Row] = []
        while page := await self.post(path, {**(body or {}), "limit": 200, "offset": len(found)}):
            found += page
            if len(page) < 200:
                break
        return found

    async def runs(self, flow: str, **run_filter: Any) -> list[Row]:
        """Return the runs of a flow."""
        body: Row = {"flows": {"name": {"any_": [flow]}}, "flow_runs": run_filter}
        return await self.all("/flow_runs/filter", body)

    async def cycles(self) -> list[Row]:
        """Return the cycles that are not still to come."""
        runs = await self.runs("propose-cycle")
        return [run for run in runs if run["state"]["type"] != "SCHEDULED"]

    async def run(self, run_id: str) -> Row:
        """Return one run."""
        found: Row = await self.get(f"/flow_runs/{run_id}")
        return found

    async def states(self, run_id: str) -> list[str]:
        """Return a run's states as TYPE/Name, oldest first."""
        states = await self.get(f"/flow_run_states/?flow_run_id={run_id}")
        return [f"{s['type']}/{s['name']}" for s in sorted(states, key=lambda s: s["timestamp"])]

    async def log(self, run_id: str) -> list[str]:
        """Return a run's log lines."""
        logs = await self.all("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"})
        return [line["message"] for line in logs]

    async def parent(self, run: Row) -> Row:
        """Return the run whose task a run is the child of."""
        task_run = await self.get(f"/task_runs/{run['parent_task_run_id']}")
        return await self.run(task_run["flow_run_id"])

    async def cancel(self, run_id: str) -> None:
        """Cancel a run, as the UI does."""
        await self.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    async def differences(self, ledger: Ledger) -> list[str]:
        """Say where Prefect shows something else than the ledger has."""
        runs = {run["id"]: run for run in await self.runs("prove")}
        found: list[str] = []
        for row in ledger.requests():
            run = runs.get(row["flow_run_id"] or "")
            shown = f"{run['state']['type']}/{run['state']['name']}" if run else "no run"
            if row["mirrored_event"] < row["last_event"]:
                found.append(f"request {row['id']} has a history that is not shown yet")
            if shown != shown_as(row):
                found.append(f"request {row['id']} is {row['status']} {row['failure'] or ''}, Prefect shows {shown}")
        return found

    async def equal(self, ledger: Ledger, seconds: float = PATIENCE) -> None:
        """Wait until Prefect shows exactly what the ledger has."""

        async def look() -> bool:
            nonlocal found
            found = await self.differences(ledger)
            return not found

        found: list[str] = []
        try:
            await eventually("Prefect equals the ledger", look, seconds=seconds)
        except AssertionError as error:
            raise AssertionError("\n".join(found)) from error

    async def clean(self) -> None:
        """Forget every run, deployment, work pool, block and variable of the test before."""
        for flow in await self.all("/flows/filter"):
            await self._delete(f"/flows/{flow['id']}")
        for pool in await self.all("/work_pools/filter"):
            if pool["name"] != "prefect-agent-pool":
                await self._delete(f"/work_pools/{pool['name']}")
        for block in await self.all("/block_documents/filter"):
            await self._delete(f"/block_documents/{block['id']}")
        for variable in await self.all("/variables/filter"):
            await self._delete(f"/variables/{variable['id']}")

    async def _delete(self, path: str) -> None:
        """Delete; SQLite answers 503 while somebody else writes."""

        async def done() -> bool:
            answer = await self._client.delete(path)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                answer.raise_for_status()
            return answer.is_success

        await eventually(f"DELETE {path} is done", done)


async def settled(devnet: Devnet, block: int, up: Up | None = None, seconds: float = PATIENCE) -> None:
    """Wait until the contract's latest block is at least this one."""

    async def look() -> bool:
        return await devnet.latest_block_number() >= block

    await eventually(f"block {block} settled", look, seconds=seconds, alive=up)


def measured(sentence: str) -> None:
    """Leave a measurement in the test's output."""
    sys.stdout.write(f"measured: {sentence}\n")


async def acted(rows: Ledger, where: str, up: Up, seconds: float, *values: Any) -> float:
    """Wait until an event satisfies a condition; return the seconds it took."""
    began = time.monotonic()

    async def look() -> bool:
        return bool(rows.query(f"SELECT 1 FROM request_events WHERE {where} LIMIT 1", *values))

    await eventually(f"an event where {where}", look, seconds=seconds, alive=up)
    return time.monotonic() - began


async def judged(devnet: Devnet, rows: Ledger) -> Report:
    """Hold the chain, the server's log and the ledger against each other; fail where a promise was broken."""
    report = await check(
        l1_rpc=devnet.l1_rpc,
        oracle=devnet.oracle_address,
        proposer=devnet.proposer_address,
        output_root=devnet.l2.output_root,
        log=devnet.prover.log.events,
        ledger_url=rows.url,
    )
    assert report.violations == []
    return report
