"""One real Prefect server per session; per test a devnet, a ledger and real `proposer up` processes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from deployments.prefect_server import PrefectServer
from infra.devnet import Devnet, ProverTiming
from tests.acceptance.helpers import QUICK, ROOT, Ledger, Prefect, Up, free_port, plain_environment
from tests.devnets import StartDevnet, devnets

PREFECT = str(Path(sys.executable).with_name("prefect"))

SERVICES = {"PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "1"}
"""How often Prefect's own services look, for tests that wait for one."""

StartUp = Callable[..., Up]


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
        with httpx.Client(timeout=2, trust_env=False) as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    if client.get(f"{self.api_url}/health").status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)
        raise AssertionError("the Prefect server did not start within 60 s")

    def stop(self) -> None:
        """Stop it at once, as a crash of its machine would."""
        child = self._server._child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait(10)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[SessionServer]:
    """A Prefect server for the whole session."""
    with tempfile.TemporaryDirectory(prefix="acceptance-prefect-") as folder:
        server = SessionServer(Path(folder))
        server.start()
        yield server
        server.stop()
        sys.stdout.write(server.log_file.read_text(encoding="utf-8", errors="replace")[-3000:])


@pytest_asyncio.fixture
async def prefect(prefect_server: SessionServer) -> AsyncIterator[Prefect]:
    """What the session's Prefect server shows; empty at the start of each test."""
    api = Prefect(prefect_server.api_url)
    await api.clean()
    yield api
    await api.aclose()


@pytest_asyncio.fixture
async def start_devnet(tmp_path: Path) -> AsyncIterator[StartDevnet]:
    """Start devnets with these changes to a fast one; stopped after the test."""
    async with devnets(
        l1_block_time_s=0.5,
        l2_blocks_per_second=0.0,
        l2_initial_finalized=1100,
        timing=ProverTiming(0.2, 0.4, 0.2, 0.4),
    ) as start:
        yield start


@pytest.fixture
def rows(database_url: str) -> Ledger:
    """The rows of the test's ledger."""
    return Ledger(database_url)


@pytest.fixture
def up(tmp_path: Path, database_url: str, prefect_server: SessionServer, prefect: Prefect) -> Iterator[StartUp]:
    """A function that starts `proposer up` for a devnet; all are killed after the test, and what they said is shown.

    A name set to None is left out of the environment.
    """
    started: list[Up] = []

    def start(devnet: Devnet, name: str = "home", **changes: str | None) -> Up:
        environment: dict[str, str | None] = {
            **devnet.env(),
            **QUICK,
            "DATABASE_URL": database_url,
            "PREFECT_API_URL": prefect_server.api_url,
            **changes,
        }
        one = Up(tmp_path / name, {key: value for key, value in environment.items() if value is not None})
        started.append(one)
        return one.start()

    yield start
    for one in started:
        one.kill()
        for name in ("PRIVATE_KEY", "DATABASE_URL"):
            if name in one.environment:
                assert one.environment[name].removeprefix("0x") not in one.output, f"{name} was printed"
        said = [line for line in one.output.splitlines() if "Finished in state Completed" not in line]
        sys.stdout.write("\n".join([f"--- {one.output_file.name}:", *said[-60:], ""]))


@pytest.fixture
def prefect_cli(tmp_path: Path, prefect_server: SessionServer) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs `prefect` against the session's server."""

    def run(*arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        environment = plain_environment(tmp_path / "cli") | {"PREFECT_API_URL": prefect_server.api_url}
        return subprocess.run(
            [PREFECT, *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    return run
