"""Prefect's server of the production set-up on PostgreSQL, with a line for every call it answers."""

import re
from pathlib import Path
from typing import Self

from deployments.prefect_server import RETENTION
from tests.acceptance.prefect_servers import ServerByScript

_CALL = re.compile(r'"(?:GET|POST|PATCH|PUT|DELETE) /api/\S+ HTTP')


class CountingServer(ServerByScript):
    """Prefect's API, UI and services in one process, as compose runs them; use as a context manager."""

    def __init__(self, folder: Path, database: str) -> None:
        logged = {"PREFECT_SERVER_LOGGING_LEVEL": "INFO"}
        super().__init__(folder, {**RETENTION, **logged, "PREFECT_API_DATABASE_CONNECTION_URL": database})

    def calls(self) -> int:
        """How many calls it has answered."""
        return len(_CALL.findall(self.output))

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        return self.start()

    def __exit__(self, *_error: object) -> None:
        """Stop it."""
        self.stop()
