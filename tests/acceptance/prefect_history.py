"""A real Prefect server on PostgreSQL, and years of history for it: real cycles, copied at their real shape, aged."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, LiteralString, Self

import httpx
import psycopg
from psycopg import sql

from tests.acceptance.helpers import ROOT, free_port, plain_environment

SCRIPT = ROOT / "infra" / "docker" / "prefect-server.sh"

TABLES: tuple[LiteralString, ...] = (
    "flow_run",
    "flow_run_state",
    "task_run",
    "task_run_state",
    "log",
    "artifact",
    "events",
    "event_resources",
)
"""What grows with every cycle."""

_OWN_IDS = {
    "id",
    "flow_run_id",
    "task_run_id",
    "parent_task_run_id",
    "state_id",
    "result_artifact_id",
    "event_id",
    "follows",
}
"""Columns that name a copied row; all other ids (flow, deployment, work queue) stay."""


class ServerOnPostgres:
    """`infra/docker/prefect-server.sh` on loopback, as a container would run it."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self.output_file = home / "server.log"
        self._environment = {
            **plain_environment(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_HOME": str(home / "prefect-server"),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> Self:
        """Start it with these settings besides, and wait until it answers."""
        with self.output_file.open("ab") as output:
            self._process = subprocess.Popen(
                [str(SCRIPT)],
                env=self._environment | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        with httpx.Client(timeout=2, trust_env=False) as client:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if client.get(f"{self.api_url}/health").status_code == httpx.codes.OK:
                        return self
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
        raise AssertionError(f"the Prefect server did not start:\n{self.output[-3000:]}")

    @property
    def output(self) -> str:
        """What it has said."""
        return self.output_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Stop it and everything it has started."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


class History:
    """The database of a Prefect server that is stopped: what is in it, and more of the same."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _run(self, statement: sql.Composable | LiteralString) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")  # copies point at each other
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def counts(self) -> dict[str, int]:
        """Count the rows of every table that grows."""
        statement = sql.SQL("SELECT count(*) FROM {}")
        return {table: self._run(statement.format(sql.Identifier(table)))[0][0] for table in TABLES}

    def megabytes(self) -> float:
        """Return the size of the database on disk, indexes included."""
        return self._run("SELECT pg_database_size(current_database())")[0][0] / 1e6

    def size_of(self, *tables: str) -> float:
        """Return the megabytes of these tables with their indexes."""
        sizes = [self._run(sql.SQL("SELECT pg_total_relation_size({})").format(sql.Literal(t)))[0][0] for t in tables]
        return sum(sizes) / 1e6

    def cycles(self) -> int:
        """Count the cycles that have ended."""
        ended = "SELECT count(*) FROM flow_run WHERE end_time IS NOT NULL AND flow_id = (SELECT id FROM flow WHERE name = 'propose-cycle')"
        return self._run(ended)[0][0]

    def keep_as_sample(self) -> None:
        """Set what is there aside as the sample that copies are made of, without runs that are still to come."""
        self._run("UPDATE deployment_schedule SET active = false")  # nobody is there to run them
        self._run("DELETE FROM flow_run_state USING flow_run r WHERE r.id = flow_run_id AND r.state_type = 'SCHEDULED'")
        self._run("DELETE FROM flow_run WHERE state_type = 'SCHEDULED'")
        for table in TABLES:
            names = sql.Identifier(f"sample_{table}"), sql.Identifier(table)
            self._run(sql.SQL("CREATE TABLE {} AS TABLE {}").format(*names))
        for table in TABLES:
            self._run(sql.SQL("TRUNCATE {} CASCADE").format(sql.Identifier(table)))

    def add(self, copies: int, days: float, first: int, ago: float) -> None:
        """Add so many copies of the sample, spread over `days` that ended `ago` days ago, numbered from `first`."""
        for table in TABLES:
            columns = self._columns(table)
            values = [_copied(name, kind, ago, days / copies, first) for name, kind in columns]
            self._run(
                sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} CROSS JOIN generate_series({}, {}) AS copy").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
                    sql.SQL(", ").join(values),
                    sql.Identifier(f"sample_{table}"),
                    sql.Literal(first),
                    sql.Literal(first + copies - 1),
                )
            )

    def overdue(self, run_days: float, event_days: float) -> int:
        """Count the runs that ended, and the events that occurred, more than so many days ago."""
        older = "SELECT (SELECT count(*) FROM flow_run WHERE end_time < now() - interval '1 day' * {}) + (SELECT count(*) FROM events WHERE occurred < now() - interval '1 day' * {})"
        return self._run(sql.SQL(older).format(run_days, event_days))[0][0]

    def reclaim(self) -> None:
        """Do what PostgreSQL's own autovacuum does sooner or later."""
        self._run("VACUUM")

    def _columns(self, table: str) -> list[tuple[str, str]]:
        return [
            (name, kind)
            for name, kind in self._run(
                sql.SQL(
                    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = {} "
                    "AND table_schema = 'public' AND is_generated = 'NEVER' ORDER BY ordinal_position"
                ).format(sql.Literal(table))
            )
        ]


def _copied(name: str, kind: str, ago: float, days: float, first: int) -> sql.Composable:
    """Return the expression of one column of a copy: ids of its own, and a time of its own."""
    column = sql.Identifier(name)
    if kind == "uuid" and name in _OWN_IDS:
        return sql.SQL("md5({}::text || copy)::uuid").format(column)
    if name == "idempotency_key":
        return sql.SQL("{} || '-' || copy").format(column)
    if kind.startswith("timestamp"):
        return sql.SQL("{} - interval '1 day' * ({} + {} * (copy - {}))").format(column, ago, days, first)
    return column
