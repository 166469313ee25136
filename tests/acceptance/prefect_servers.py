"""Real Prefect servers for tests: the one that `up` starts by itself, and the one of the production set-up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import httpx
import pytest

from deployments.prefect_server import PrefectServer
from tests.acceptance.helpers import ROOT, free_port, plain_environment

START_SECONDS = 90
SCRIPT = ROOT / "infra" / "docker" / "prefect-server.sh"
SERVICES = {"PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "1"}
"""How often Prefect's own services look, for tests that wait for one."""


def await_answer(api_url: str, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until a server that is starting answers."""
    with httpx.Client(timeout=2, trust_env=False) as client:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and alive():
            try:
                if client.get(f"{api_url}/health").status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
    raise AssertionError("the Prefect server did not start")


class SessionServer:
    """The session's Prefect server, which a test may stop and start again on the same port."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.log_file = home / "prefect" / "server.log"
        self._server = PrefectServer(home, self.port)
        self._environment = {**plain_environment(home), "PREFECT_HOME": str(home / "prefect"), **SERVICES}

    @property
    def api_url(self) -> str:
        """Where its API is."""
        return self._server.api_url

    def start(self) -> None:
        """Start it and wait until it answers."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("PREFECT_")]:
                patch.delenv(name)
            for name, value in self._environment.items():
                patch.setenv(name, value)
            self._server.start()
        await_answer(self.api_url)

    def stop(self) -> None:
        """Stop it at once, as a crash of its machine would."""
        child = self._server._child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait(10)


class ServerByScript:
    """`infra/docker/prefect-server.sh` on loopback, as a container runs it, but on SQLite unless told otherwise."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self.output_file = home / "server.log"
        self.database = home / "prefect-server" / "prefect.db"
        self._environment = {
            **plain_environment(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_HOME": str(self.database.parent),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> Self:
        """Start it with these settings besides, and wait until it answers."""
        with self.output_file.open("ab") as output:
            self._process = process = subprocess.Popen(
                [str(SCRIPT)],
                env=self._environment | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            await_answer(self.api_url, lambda: process.poll() is None)
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}:\n{self.output[-3000:]}") from None
        return self

    @property
    def pid(self) -> int:
        """Its one process."""
        assert self._process is not None, "it was never started"
        return self._process.pid

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
