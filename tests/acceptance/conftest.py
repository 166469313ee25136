"""One real Prefect server per session; per test a devnet, a ledger and real `proposer up` processes."""

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.devnet import Devnet, ProverTiming
from tests.acceptance.helpers import PATIENCE, QUICK, ROOT, Ledger, Prefect, Up, plain_environment
from tests.acceptance.prefect_servers import SessionServer
from tests.devnets import StartDevnet, devnets

PREFECT = str(Path(sys.executable).with_name("prefect"))

StartUp = Callable[..., Up]


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

    def run(*arguments: str, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
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
