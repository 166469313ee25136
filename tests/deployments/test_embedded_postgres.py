"""The embedded PostgreSQL: a real server in a folder, as another user where we are root."""

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest_asyncio

from blocks.ledger import Ledger
from deployments.embedded_postgres import EmbeddedPostgres
from tests.deployments.helpers import ROOT, eventually, plain_environment, runs


@pytest_asyncio.fixture
async def postgres_folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder that does not exist yet, below one that only its owner may enter; nothing runs in it afterwards."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    folder = home / "postgres"
    yield folder
    if _serving(folder):
        os.kill(_postmaster(folder), signal.SIGQUIT)


def _postmaster(folder: Path) -> int:
    return int((folder / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])


def _serving(folder: Path) -> bool:
    return (folder / "postmaster.pid").exists()


def _mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def _answer(url: str) -> int:
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute("SELECT 42").fetchone()
    assert row is not None
    return int(row[0])


async def test_it_starts_in_an_empty_folder_and_leaves_nothing_running(postgres_folder: Path) -> None:
    """The ledger is migrated in it, what was written is there after a restart, and no TCP port is opened."""
    server = EmbeddedPostgres(postgres_folder)
    url = await server.start()
    first = _postmaster(postgres_folder)
    assert runs(first)
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW listen_addresses").fetchone()
        assert row == ("",)
    ledger = Ledger(url)
    await ledger.migrate()
    assert await ledger.identity() is None
    await ledger.close()
    await server.stop()
    assert not runs(first)
    assert not _serving(postgres_folder)

    again = EmbeddedPostgres(postgres_folder)
    url = await again.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM proof_requests").fetchone() == (0,)
    await again.stop()
    assert not _serving(postgres_folder)


async def test_its_data_is_closed_to_others(postgres_folder: Path) -> None:
    """The folders above may have to be passable for the server's user; the data itself is only that user's."""
    server = EmbeddedPostgres(postgres_folder)
    await server.start()
    assert _mode(postgres_folder) == 0o700
    await server.stop()


async def test_it_is_started_again_when_its_postmaster_is_killed(postgres_folder: Path) -> None:
    """By kill -9, with a connection open; the URL stays the same and committed rows are there."""
    server = EmbeddedPostgres(postgres_folder)
    url = await server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    supervising = asyncio.create_task(server.supervise())
    killed = _postmaster(postgres_folder)
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
        os.kill(killed, signal.SIGKILL)

    async def rows() -> list[tuple[int]]:
        try:
            with psycopg.connect(url, connect_timeout=2) as again:
                return again.execute("SELECT n FROM kept").fetchall()
        except psycopg.OperationalError:
            return []

    await asyncio.sleep(0.5)
    assert await eventually("the server answers again", rows) == [(7,)]
    assert _postmaster(postgres_folder) != killed
    supervising.cancel()
    await server.stop()
    assert not _serving(postgres_folder)


ATTACH = """
import asyncio, sys
from pathlib import Path
from deployments.embedded_postgres import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    print(await server.start(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()

asyncio.run(main())
"""


async def test_a_second_process_attaches_and_the_last_one_stops_it(postgres_folder: Path) -> None:
    """Also where the first ends in between: the server serves as long as anybody uses it."""
    server = EmbeddedPostgres(postgres_folder)
    url = await server.start()
    pid = _postmaster(postgres_folder)
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ATTACH,
        str(postgres_folder),
        env=plain_environment(postgres_folder.parent),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert (await asyncio.wait_for(other.stdout.readline(), 120)).decode().strip() == url
    assert _postmaster(postgres_folder) == pid
    await server.stop()
    assert runs(pid)
    assert _answer(url) == 42
    await asyncio.wait_for(other.communicate(b"\n"), 120)
    assert other.returncode == 0
    assert not runs(pid)
    assert not _serving(postgres_folder)
