"""Prefect's server on PostgreSQL, with a line for every call it answers."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx

from deployments.prefect_server import RETENTION
from infra.devnet.loopback import free_port
from tests.acceptance.helpers import plain_environment

_CALL = re.compile(r'"(?:GET|POST|PATCH|PUT|DELETE) /api/\S+ HTTP')
START_SECONDS = 90.0


class CountingServer:
    """Prefect's API, UI and services in one process, as compose runs them; use as a context manager."""

    def __init__(self, folder: Path, database: str) -> None:
        self._port = free_port()
        self._log = folder / "prefect-server.log"
        self._environment = {
            **plain_environment(folder),
            **RETENTION,
            "PREFECT_HOME": str(folder / "prefect-server"),
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def api_url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self._port}/api"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def calls(self) -> int:
        """How many calls it has answered."""
        return len(_CALL.findall(self._log.read_text(encoding="utf-8", errors="replace")))

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self._port), "--log-level", "info"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(timeout=2, trust_env=False) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if client.get(f"{self.api_url}/health").status_code == httpx.codes.OK:
                        return self
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
        said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
        self.__exit__()
        raise SystemExit(f"Prefect's server did not start within {START_SECONDS:.0f} s:\n{said}")

    def __exit__(self, *_error: object) -> None:
        """Stop it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
