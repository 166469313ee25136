"""The Prefect server of our own: on loopback, without 503 storms, started again when killed, gone with its parent."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments import prefect_server
from deployments.environment import client_environment, read_environment
from deployments.prefect_server import PrefectServer
from infra.devnet.loopback import bind_loopback, free_port
from proposer.errors import FixConfiguration
from tests.deployments.helpers import ROOT, environment_of, plain_environment, runs

PARENT = """
import asyncio, sys
from pathlib import Path
from deployments.prefect_server import PrefectServer

async def main():
    server = PrefectServer(Path(sys.argv[1]), int(sys.argv[2]))
    server.start()
    print(server._child.pid, flush=True)
    await server.supervise()

asyncio.run(main())
"""
"""A proposer reduced to its Prefect server."""


@dataclass
class Parent:
    """A small process that holds a Prefect server; started when a test needs it and kept for the next one."""

    home: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def api_url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        """Start the parent with the environment that `proposer up` gives itself."""
        settings = {
            "L1_RPC": "http://l1.example.com",
            "L2_NODE_RPC": "http://node.example.com",
            "L2OO_ADDRESS": "0x" + "11" * 20,
            "PRIVATE_KEY": "11" * 32,
            "PROPOSER_HOME": str(self.home),
            "PREFECT_SERVER_API_PORT": str(self.port),
        }
        environment = plain_environment(self.home) | client_environment(read_environment(settings))
        arguments = [sys.executable, "-c", PARENT, str(self.home), str(self.port)]
        self.process = subprocess.Popen(arguments, env=environment, cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def servers(self) -> list[int]:
        """The numbers of the server processes it has now."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in children.split() if runs(int(pid))]

    def kill(self) -> None:
        """Kill the parent, and only it, as an out-of-memory killer would."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture(scope="module", autouse=True)
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """The module's Prefect server in the hands of a process of its own."""
    made = Parent(tmp_path_factory.mktemp("prefect"), free_port())
    made.start()  # the first tests do not need it and pass while it starts
    yield made
    left = made.servers() if made.process is not None else []
    made.kill()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def server(parent: Parent) -> Parent:
    """A server that answers."""
    if parent.process is None:
        parent.start()
    watcher = PrefectServer(parent.home, parent.port)
    log = parent.home / "prefect" / "server.log"
    assert asyncio.run(watcher.healthy(asyncio.Event(), seconds=120)), log.read_text(encoding="utf-8")[-2000:]
    return parent


def _listening(port: int) -> set[str]:
    """The local addresses, in the kernel's hex, that something listens on with this port."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            address, _, local_port = line.split()[1].partition(":")
            if int(local_port, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


def _free(port: int) -> bool:
    return PrefectServer(Path(), port).port_is_free()


def test_a_server_whose_parent_died_before_it_could_ask_ends_by_itself(tmp_path: Path) -> None:
    """The parent may be killed while the child still imports: then no signal comes, and it looks for itself."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ended = subprocess.run(
        [sys.executable, "-m", "deployments.prefect_main", str(gone.pid), str(free_port())],
        env=plain_environment(tmp_path) | {"PREFECT_HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert "the proposer that started this server is gone" in ended.stderr


async def test_waiting_for_it_ends_when_asked_to_stop_and_in_time() -> None:
    """A server that never answers does not hold up a stop."""
    with bind_loopback() as silent:
        silent.listen()
        server = PrefectServer(Path(), silent.getsockname()[1])
        stop = asyncio.Event()
        stop.set()
        assert not await asyncio.wait_for(server.healthy(stop), 20)
    assert not await asyncio.wait_for(PrefectServer(Path(), free_port()).healthy(asyncio.Event(), seconds=0.5), 20)


async def test_stopping_one_that_still_starts_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    server = PrefectServer(tmp_path, free_port())
    server.start()
    child = server._child
    assert child is not None
    await server.stop()
    assert not runs(child.pid)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", server._port), 1):
        pass


def test_it_listens_on_loopback_only(server: Parent) -> None:
    """Its API hands the proposer's secrets to whoever reaches it."""
    assert _listening(server.port) == {"0100007F"}


def test_it_sends_no_telemetry_and_vacuums_its_database(server: Parent) -> None:
    """What the server process was started with, and what it says of its own settings."""
    (pid,) = server.servers()
    environment = environment_of(pid)
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert "PREFECT_API_URL" not in environment
    settings = httpx.get(f"{server.api_url}/admin/settings", timeout=60, trust_env=False).json()["server"]
    assert settings["analytics_enabled"] is False
    assert settings["ui"]["show_promotional_content"] is False
    assert settings["events"]["retention_period"] == "P2D"
    assert settings["services"]["db_vacuum"]["retention_period"] == "P30D"


def test_its_database_is_in_the_home_folder(server: Parent) -> None:
    assert (server.home / "prefect" / "prefect.db").exists()


async def _create_at_once(api_url: str, count: int) -> Counter[int]:
    async with httpx.AsyncClient(base_url=api_url, timeout=60, trust_env=False) as client:
        flow = (await client.post("/flows/", json={"name": "concurrent"})).json()["id"]
        body = {"flow_id": flow, "state": {"type": "PENDING"}, "tags": ["a", "b"]}
        answers = await asyncio.gather(*(client.post("/flow_runs/", json=body) for _ in range(count)))
        return Counter(answer.status_code for answer in answers)


def test_runs_created_at_once_are_all_created(server: Parent) -> None:
    """Prefect on SQLite answers most of them with 503: the reason why ours begins its transactions IMMEDIATE.

    Not more at once than a busy machine creates while the last one waits for the lock, which is two seconds.
    """
    answers = sum((asyncio.run(_create_at_once(server.api_url, 10)) for _ in range(4)), Counter[int]())
    assert answers == Counter({201: 40})


def test_a_port_that_stays_taken_is_said_before_anything_starts(
    server: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_server, "PORT_SECONDS", 0.5)
    with pytest.raises(FixConfiguration, match=rf"PREFECT_SERVER_API_PORT: port {server.port} is taken; set it to"):
        asyncio.run(PrefectServer(server.home, server.port).await_port())


def test_it_is_started_again_when_it_is_killed_and_keeps_its_runs(server: Parent) -> None:
    (killed,) = server.servers()
    flows = f"{server.api_url}/flows/"
    kept = httpx.post(flows, json={"name": "kept"}, timeout=60, trust_env=False).json()["id"]
    os.kill(killed, signal.SIGKILL)
    assert asyncio.run(PrefectServer(server.home, server.port).healthy(asyncio.Event(), seconds=120))
    (again,) = server.servers()
    assert again != killed
    assert httpx.get(flows + kept, timeout=60, trust_env=False).json()["name"] == "kept"


def test_it_dies_with_its_parent_so_that_the_port_is_free(server: Parent) -> None:
    """Also when the parent is killed with -9; the next start of the proposer finds its port."""
    (pid,) = server.servers()
    server.kill()
    deadline = time.monotonic() + 60
    while runs(pid) or not _free(server.port):
        assert time.monotonic() < deadline, "the server outlives its parent"
        time.sleep(0.05)
