"""A Prefect server of our own, on loopback, for one machine with nothing installed."""

import asyncio
import inspect
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from proposer.errors import FixConfiguration

log = logging.getLogger("proposer.prefect")

START_SECONDS = 90
DRAIN_SECONDS = 5
PORT_SECONDS = 10
_KEPT = ("PREFECT_", "PYTHON", "LC_")
RETENTION = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",  # seconds: 30 days of runs
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
}
"""What Prefect's own vacuum keeps; infra ships the same."""


class PrefectServer:
    """Prefect's server as a child that dies with this process, started again when it dies before."""

    def __init__(self, home: Path, port: int) -> None:
        self._home = home
        self._port = port
        self._child: subprocess.Popen[bytes] | None = None
        self._waits_for_port = False

    @property
    def api_url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self._port}/api"

    def port_is_free(self) -> bool:
        """Whether nothing listens on the port."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError:
                return False
        return True

    async def await_port(self) -> None:
        """Wait for a server that is just ending. Raises `FixConfiguration` where something else keeps the port."""
        for _ in range(int(PORT_SECONDS / 0.25)):
            if self.port_is_free():
                return
            await asyncio.sleep(0.25)
        raise FixConfiguration(
            f"PREFECT_SERVER_API_PORT: port {self._port} is taken; set it to a free one, or set PREFECT_API_URL to the "
            "Prefect server that is to be used"
        )

    def start(self) -> None:
        """Start the child, where its port is free; its output goes to `prefect/server.log` in the home folder."""
        if not self.port_is_free():
            if not self._waits_for_port:
                log.warning("port %s is still taken; Prefect's server is started when it is free", self._port)
            self._waits_for_port = True
            return
        self._waits_for_port = False
        folder = self._home / "prefect"
        folder.mkdir(parents=True, exist_ok=True)
        # nothing of the proposer's own settings, which hold its secrets
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "DO_NOT_TRACK")
        environment = {name: value for name, value in os.environ.items() if name in kept or name.startswith(_KEPT)}
        environment |= {
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self._port),
            **RETENTION,
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        }
        environment.pop("PREFECT_API_URL", None)
        command = [sys.executable, "-m", "deployments.prefect_main", str(os.getpid()), str(self._port)]
        with (folder / "server.log").open("ab") as output:
            self._child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=Path(__file__).resolve().parent.parent,
            )

    async def healthy(self, stop: asyncio.Event, seconds: float = START_SECONDS) -> bool:
        """Wait until the API answers; False when it does not in time, or when asked to stop."""
        async with httpx.AsyncClient(timeout=2) as client:
            for _ in range(int(seconds / 0.25)):
                if stop.is_set():
                    break
                try:
                    if (await client.get(f"{self.api_url}/health")).status_code == 200:
                        return True
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.25)
        return False

    async def supervise(self) -> None:
        """Start the child whenever there is none, for ever."""
        while True:
            await asyncio.sleep(2)
            if self._child is None:
                self.start()
            elif self._child.poll() is not None:
                log.warning("Prefect's server ended with status %s; starting it again", self._child.returncode)
                self.start()

    async def stop(self) -> None:
        """Stop the child and wait for it, once it has what this process still has to tell it."""
        await drain_prefect()
        if self._child is None or self._child.poll() is not None:
            return
        os.killpg(self._child.pid, signal.SIGTERM)
        try:
            await asyncio.to_thread(self._child.wait, 10)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            await asyncio.to_thread(self._child.wait, 10)


async def answers(api_url: str) -> bool:
    """Whether a Prefect server is there."""
    async with httpx.AsyncClient(timeout=3, trust_env=False) as client:
        try:
            return (await client.get(f"{api_url.rstrip('/')}/health")).status_code == 200
        except httpx.HTTPError:
            return False


async def drain_prefect() -> None:
    """Send the log lines and events that Prefect's client still holds; without it the exit waits for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (APILogWorker, EventsWorker):
        draining = service.drain_all(timeout=DRAIN_SECONDS, at_exit=False)
        if inspect.isawaitable(draining):
            await draining
