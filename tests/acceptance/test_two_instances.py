"""Two rollups on one machine, each with all of its own: home, PostgreSQL, Prefect server, contract."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.devnet import Devnet
from tests.acceptance.helpers import PATIENCE, QUICK, Ledger, Prefect, Up, free_port, settled
from tests.devnets import StartDevnet


@pytest.fixture
def homes() -> Iterator[list[Up]]:
    """Instances in a short folder (a Unix socket's path is short), killed at the end with what they started."""
    instances: list[Up] = []
    with tempfile.TemporaryDirectory(prefix="two-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        instances += [Up(Path(folder) / name, {}) for name in ("a", "b")]
        yield instances
        for one in instances:
            one.kill()
            for file in (one.home / "postgres").glob("postmaster.pid"):
                os.kill(int(file.read_text().split()[0]), 9)


def _start(one: Up, devnet: Devnet, port: int) -> None:
    one.environment |= {**devnet.env(), **QUICK, "PREFECT_SERVER_API_PORT": str(port)}
    one.start()


async def test_two_rollups_side_by_side(start_devnet: StartDevnet, homes: list[Up]) -> None:
    """Both settle their own contract from nothing installed, and leave nothing running after SIGTERM."""
    devnets = [await start_devnet(seed=seed) for seed in (1, 2)]
    ports = [free_port(), free_port()]
    for one, devnet, port in zip(homes, devnets, ports, strict=True):
        _start(one, devnet, port)
    for one, devnet in zip(homes, devnets, strict=True):
        await settled(devnet, 1100, one, seconds=2 * PATIENCE)
    for one, port in zip(homes, ports, strict=True):
        ledger = Ledger((one.home / "ledger.url").read_text().strip())
        assert len(ledger.requests()) == 3
        prefect = Prefect(f"http://127.0.0.1:{port}/api")
        await prefect.equal(ledger)
        await prefect.aclose()
    assert await asyncio.gather(*(one.terminate() for one in homes)) == [0, 0]
    for one, port in zip(homes, ports, strict=True):
        assert not (one.home / "postgres" / "postmaster.pid").exists()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
