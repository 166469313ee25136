"""A PostgreSQL with contrib modules, which Prefect's server needs and the embedded one has not."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from infra.devnet.loopback import free_port

DEBIAN = Path("/usr/lib/postgresql")


class SystemPostgres:
    """The machine's own PostgreSQL on a fresh data folder, on loopback; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "prefect-postgres"
        self._port = free_port()
        self._bin = _programs()
        # PostgreSQL refuses to run as root; the system package brings a user of its own
        self._user = "postgres" if os.geteuid() == 0 else None
        self.pid = 0

    @property
    def url(self) -> str:
        """The address of its `prefect` database, as Prefect's server takes it."""
        return f"postgresql+asyncpg://prefect@127.0.0.1:{self._port}/prefect"

    @property
    def plain_url(self) -> str:
        """The same without Prefect's driver."""
        return self.url.replace("+asyncpg", "")

    def __enter__(self) -> Self:
        """Initialise and start it, and wait until it answers."""
        self._folder.mkdir()
        for folder in (self._folder, self._folder.parent):
            folder.chmod(0o711)
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "--pgdata", self._data, "--username", "prefect", "--auth", "trust", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories={self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "--pgdata", self._data, "--log", log, "--wait", "--options", options, "start")
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self._port), "--username", "prefect", "prefect")
        self.pid = int((Path(self._data) / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop it."""
        self._run("pg_ctl", "--pgdata", self._data, "--mode", "immediate", "--wait", "stop")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments],
            user=self._user,
            cwd=self._folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


def _programs() -> Path:
    """Find the newest PostgreSQL's programs. Raises `SystemExit` with the remedy."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise SystemExit("make fleet needs PostgreSQL with its contrib modules: apt-get install postgresql")
    return versions[-1].parent
