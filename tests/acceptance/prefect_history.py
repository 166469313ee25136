"""A real Prefect server, and months of history for it: real cycles, copied at their real shape and aged."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

TABLES = (
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


class History:
    """The SQLite database of a Prefect server: what is in it, and, while the server is stopped, more of the same."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=30)) as connection, connection:
            connection.create_function("copied_id", 2, _copied_id, deterministic=True)
            yield connection

    def _one(self, query: str) -> int:
        with self._open() as connection:
            found: int = connection.execute(query).fetchone()[0]
        return found

    def counts(self) -> dict[str, int]:
        """Count the rows of every table that grows."""
        return {table: self._one(f"SELECT count(*) FROM {table}") for table in TABLES}

    def megabytes(self) -> float:
        """Return the size of what is in use; the file itself keeps free pages for later."""
        pages = "SELECT (p.page_count - f.freelist_count) * s.page_size FROM pragma_page_count p"
        return self._one(f"{pages}, pragma_freelist_count f, pragma_page_size s") / 1e6

    def file_megabytes(self) -> float:
        """Return the size of the file."""
        return self._file.stat().st_size / 1e6

    def cycles(self) -> int:
        """Count the cycles that have ended."""
        flow = "SELECT id FROM flow WHERE name = 'propose-cycle'"
        return self._one(f"SELECT count(*) FROM flow_run WHERE end_time IS NOT NULL AND flow_id = ({flow})")

    def overdue(self, run_days: float, event_days: float) -> int:
        """Count what runs that are gone have left, and runs and events that ended more than so many days ago."""
        runs = f"SELECT count(*) FROM flow_run WHERE end_time < datetime('now', '-{run_days} days')"
        events = f"SELECT count(*) FROM events WHERE occurred < datetime('now', '-{event_days} days')"
        left = (
            f"SELECT count(*) FROM {table} WHERE flow_run_id NOT IN (SELECT id FROM flow_run)"  # NULL is no such row
            for table in ("log", "artifact")
        )
        return self._one("SELECT " + " + ".join(f"({count})" for count in (runs, events, *left)))

    def keep_as_sample(self) -> None:
        """Set what is there aside as the sample that copies are made of, without runs that are still to come."""
        with self._open() as connection:
            connection.execute("UPDATE deployment_schedule SET active = 0")  # nobody is there to run them
            connection.execute("DELETE FROM flow_run WHERE state_type = 'SCHEDULED'")
            states = "DELETE FROM flow_run_state WHERE flow_run_id NOT IN (SELECT id FROM flow_run)"
            connection.execute(states)
            for table in TABLES:
                connection.execute(f"CREATE TABLE sample_{table} AS SELECT * FROM {table}")
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")

    def add(self, copies: int, days: float, first: int, ago: float) -> None:
        """Add so many copies of the sample, spread over `days` that ended `ago` days ago, numbered from `first`."""
        numbers = f"WITH RECURSIVE n(copy) AS (SELECT {first} UNION ALL SELECT copy + 1 FROM n"
        numbers += f" WHERE copy < {first + copies - 1})"
        back = f"'-' || ({ago} + {days / copies} * (copy - {first})) || ' days'"
        with self._open() as connection:
            for table in TABLES:
                kinds = {
                    row[1]: row[2].upper() for row in connection.execute(f"PRAGMA table_xinfo({table})") if not row[6]
                }
                values = ", ".join(_copied(name, kind, back) for name, kind in kinds.items())
                insert = f"INSERT INTO {table} ({', '.join(map(_quoted, kinds))})"
                connection.execute(f"{insert} {numbers} SELECT {values} FROM sample_{table}, n")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _copied(name: str, kind: str, back: str) -> str:
    """Return the expression of one column of a copy: ids of its own, and a time of its own."""
    if name in _OWN_IDS:
        return f'copied_id("{name}", copy)'
    if name == "idempotency_key":
        return f"\"{name}\" || '-' || copy"
    if kind in {"DATETIME", "TIMESTAMP"}:
        # the fraction as it was: states of one run are told apart by it
        return f'strftime(\'%Y-%m-%d %H:%M:%S\', "{name}", {back}) || substr("{name}", 20)'
    return _quoted(name)


def _copied_id(value: str | None, copy: int) -> str | None:
    """Return the id that a copy has in place of this one, the same wherever it is named."""
    if value is None:
        return None
    return str(UUID(bytes=hashlib.blake2b(f"{value}-{copy}".encode(), digest_size=16).digest()))
