"""The walk-through of the README, its commands as they stand there: settle, break, be told why, repair."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.acceptance.helpers import PATIENCE, ROOT, eventually, free_port, plain_environment

SECTION = "## Try it: settle, break, repair"


def commands() -> list[str]:
    """Return the blocks of shell in the walk-through, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n{SECTION}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


class Terminals:
    """A folder that looks like a fresh clone after `make install`, and shells in it."""

    def __init__(self, folder: Path) -> None:
        for name in (".venv", "Makefile", "requirements.lock", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        self.folder = folder
        home = folder / "user"
        home.mkdir()
        # the ports of the machine are taken by other tests; anvil is not downloaded for every test
        more = {"PREFECT_SERVER_API_PORT": str(free_port()), "PROPOSER_CACHE": _cache()}
        self.environment = plain_environment(home) | more
        self.open: list[subprocess.Popen[bytes]] = []

    def start(self, script: str) -> subprocess.Popen[bytes]:
        """Run a block in a terminal of its own, which stays open."""
        with (self.folder / f"terminal-{len(self.open)}.log").open("wb") as output:
            shell = subprocess.Popen(
                ["bash", "-ec", script],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.open.append(shell)
        return shell

    async def run(self, script: str) -> str:
        """Run a block to its end, not waiting for longer than it takes; it ends well. Return what it says."""
        return await asyncio.to_thread(self._run, re.sub(r"^sleep \d+$", "sleep 1", script, flags=re.MULTILINE))

    def _run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Press Ctrl-C in every terminal, the last one first."""
        for shell in reversed(self.open):
            os.killpg(shell.pid, signal.SIGINT)
            try:
                shell.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait(5)


def _cache() -> str:
    return os.environ.get("PROPOSER_CACHE", str(Path("~/.cache/op-succinct-proposer").expanduser()))


@pytest_asyncio.fixture
async def terminals(tmp_path: Path) -> AsyncIterator[Terminals]:
    """Terminals in a folder that looks like a clone; all are closed after the test."""
    opened = Terminals(tmp_path)
    yield opened
    await asyncio.to_thread(opened.close)


def test_the_walk_through_is_there() -> None:
    first, second, *_ = commands()
    assert (first, len(commands())) == ("make devnet\n", 5)
    assert "proposer up" in second


async def test_the_walk_through_does_what_it_says(terminals: Terminals) -> None:
    """A new user gets to a settled output, breaks the prover, is told so, and repairs it."""
    devnet, up, status, break_it, repair = commands()
    file = terminals.folder / ".devnet" / "devnet.env"
    terminals.start(devnet)

    async def is_there() -> bool:
        return file.exists()

    await eventually("the devnet is up", is_there)
    env = dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())
    proposer = terminals.start(up)

    async def settled(above: int) -> int:
        assert proposer.poll() is None, (terminals.folder / "terminal-1.log").read_text(encoding="utf-8")
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
            head: int = (await http.get(f"{env['DEVNET_CONTROL_URL']}/state")).json()["contract_head"]
        return head if head > above else 0

    first = await eventually("an output is settled", lambda: settled(1000), seconds=2 * PATIENCE)
    shown = await terminals.run(status)
    assert int(_found(r"settled +L2 block (\d+)", shown)) >= first

    explained = await terminals.run(break_it)

    async def names_the_server() -> bool:
        nonlocal explained
        if "Cause: server-down" not in explained:
            explained = await terminals.run(break_it)
        return "Cause: server-down" in explained

    await eventually("explain names the server", names_the_server)
    assert _found(r"To do: (.+)", explained).startswith("Requests wait without being charged an attempt.")
    stopped_at = await settled(0)

    assert "behind" in await terminals.run(repair)
    await eventually("it settles again", lambda: settled(stopped_at), seconds=2 * PATIENCE)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


@pytest.mark.parametrize("target", ["devnet", "docs"])
def test_the_makefile_knows_what_the_documents_name(target: str) -> None:
    assert re.search(rf"^{target}: ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
