"""What compose starts, started without containers: Prefect's script and a proposer, with secrets from files only."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from infra.devnet.signer import SignerStandIn
from tests.acceptance.helpers import QUICK, Up, eventually, free_port, settled
from tests.acceptance.prefect_servers import ServerByScript
from tests.blocks.loopback import Server
from tests.devnets import StartDevnet
from tests.infra.production import DOCKER, compose, with_path

HERE = ("HOST", "DATABASE", "PREFECT_HOME")
"""Settings of Prefect's container that name its network or its PostgreSQL."""


@pytest.fixture
def secrets(tmp_path: Path, database_url: str) -> Path:
    """The folder that make-secrets.sh makes, with this test's ledger."""
    folder = tmp_path / "secrets"
    subprocess.run([str(DOCKER / "make-secrets.sh"), str(folder)], env=with_path({}), check=True, capture_output=True)
    _write(folder, "database-url", database_url)
    return folder


def _write(folder: Path, name: str, value: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(value)


def _given(service: str, secrets: Path) -> dict[str, str]:
    """Return a service's environment with the secrets' paths of this machine, without what .env would fill in."""
    environment: dict[str, str] = compose()["services"][service]["environment"]
    paths = {name: value.replace("/run/secrets", str(secrets)) for name, value in environment.items()}
    return {name: value for name, value in paths.items() if "${" not in value}


@pytest.fixture
def prefect_with_password(tmp_path: Path, secrets: Path) -> Iterator[ServerByScript]:
    """Prefect's server with the settings of compose, on loopback and SQLite."""
    given = {n: v for n, v in _given("prefect", secrets).items() if not any(part in n for part in HERE)}
    given.pop("PREFECT_SERVER_API_PORT")
    server = ServerByScript(tmp_path, given).start()
    yield server
    server.stop()
    sys.stdout.write(server.output[-3000:])


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Server]:
    """Where alerts are posted to."""
    async with Server() as made:
        yield made


async def test_the_services_of_compose_settle_an_output(
    start_devnet: StartDevnet,
    tmp_path: Path,
    secrets: Path,
    prefect_with_password: ServerByScript,
    receiver: Server,
) -> None:
    """With a password between them; nobody without it gets in, and Prefect's database has no key beside the blocks.

    The account holds less than it should, and somebody is told.
    """
    server = prefect_with_password
    devnet = await start_devnet()
    signer = SignerStandIn(devnet.proposer_key, 31337)
    await signer.start()
    environment = {**devnet.env(), **signer.env()}
    del environment["PRIVATE_KEY"]
    for name, value in environment.items():
        if (secret := name.lower().replace("_", "-")) in compose()["secrets"]:
            _write(secrets, secret, value)
    _write(secrets, "alert-webhook", f"{receiver.plain}/hook")
    plain = {n: v for n, v in environment.items() if n.lower().replace("_", "-") not in compose()["secrets"]}
    up = Up(
        tmp_path / "home",
        {
            **_given("proposer", secrets),
            **plain,
            **QUICK,
            "MIN_BALANCE": "1000000",
            "PREFECT_API_URL": server.api_url,
            "METRICS_PORT": str(free_port()),
            "METRICS_ADDR": "127.0.0.1",
        },
    ).start()
    password = (secrets / "prefect-auth").read_text()
    try:
        await settled(devnet, 1100, up)
        user, word = password.split(":")
        async with httpx.AsyncClient(base_url=server.api_url, trust_env=False, timeout=10) as client:
            assert (await client.post("/flow_runs/filter", json={})).status_code == httpx.codes.UNAUTHORIZED

            async def cycles() -> bool:
                body = {"flows": {"name": {"any_": ["propose-cycle"]}}}
                answer = await client.post("/flow_runs/filter", json=body, auth=(user, word))
                return any(run["state"]["type"] == "COMPLETED" for run in answer.json())

            await eventually("a cycle is recorded", cycles, alive=up)

        async def told() -> bool:
            return any(b"low-balance" in body for _, path, body in receiver.seen if path.startswith("/hook"))

        await eventually("the low balance is told", told, alive=up)
        assert await up.terminate() == 0
    finally:
        up.kill()
        await signer.stop()
        sys.stdout.write(up.output[-3000:])
    for name in ("database-url", "prefect-auth"):
        assert (secrets / name).read_text() not in up.output
    assert {sent["from"] for sent in signer.signed} == {devnet.proposer_address}
    server.stop()
    with sqlite3.connect(server.database) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM configuration")]
        (blocks,) = connection.execute("SELECT count(*) FROM block_document").fetchone()
    assert blocks >= 6
    assert "ENCRYPTION_KEY" not in keys, json.dumps(keys)


def test_prefects_script_names_a_secret_that_is_missing(tmp_path: Path) -> None:
    """It does not start without its password, which would leave it open."""
    environment = with_path({"PREFECT_SERVER_API_AUTH_STRING_FILE": str(tmp_path / "gone")})
    done = subprocess.run(
        [str(DOCKER / "prefect-server.sh")], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert "PREFECT_SERVER_API_AUTH_STRING_FILE" in done.stderr
