"""The command line as an operator meets it: exit codes, and problems as sentences on stderr, never a traceback."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.devnet.loopback import free_port
from tests.deployments.helpers import ROOT, plain_environment

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
GOOD = {
    "L1_RPC": "http://127.0.0.1:1/l1-api-key-1234",
    "L2_NODE_RPC": "http://127.0.0.1:1",
    "L2OO_ADDRESS": "0x" + "11" * 20,
    "PRIVATE_KEY": KEY,
}

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def proposer(tmp_path: Path) -> Cli:
    """A function that runs `proposer` with these arguments and this environment only; no output holds a secret."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *arguments],
            env=plain_environment(tmp_path) | {"PROPOSER_HOME": str(tmp_path / "home")} | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert KEY not in done.stdout + done.stderr
        assert "l1-api-key-1234" not in done.stdout + done.stderr
        return done

    return run


def _problems(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The problems a refused start lists, below its one line of summary."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    first, *listed = done.stderr.splitlines()
    count = f"{len(listed)} problem{'' if len(listed) == 1 else 's'}"
    assert first == f"proposer: {count}; nothing was sent and nothing spent"
    assert all(line.startswith("  - ") for line in listed)
    return [line.removeprefix("  - ") for line in listed]


def test_help_names_the_commands(proposer: Cli) -> None:
    done = proposer("--help")
    assert done.returncode == 0
    named = ("up", "apply", "demo", "status", "explain", "doctor", "retry", "cancel", "pause", "resume")
    assert all(command in done.stdout for command in named)


@pytest.mark.parametrize("command", ["up", "apply"])
def test_without_an_environment_every_problem_is_listed(proposer: Cli, command: str) -> None:
    found = _problems(proposer(command))
    assert [problem.split(":")[0] for problem in found] == ["L1_RPC", "L2_NODE_RPC", "L2OO_ADDRESS", "PRIVATE_KEY"]
    assert all("set it" in problem for problem in found)


def test_an_env_file_that_is_missing_is_said(proposer: Cli, tmp_path: Path) -> None:
    (problem,) = _problems(proposer("up", "--env-file", str(tmp_path / "none.env")))
    assert problem == f"--env-file: {tmp_path / 'none.env'} does not exist; create it or leave the option out"


def test_an_env_file_that_is_no_text_is_said(proposer: Cli, tmp_path: Path) -> None:
    (tmp_path / "key.env").write_bytes(b"PRIVATE_KEY=\xff\xfe" + KEY.encode())
    (problem,) = _problems(proposer("up", "--env-file", str(tmp_path / "key.env")))
    assert "cannot be read as text" in problem


def test_the_environment_comes_before_the_file_where_it_says_something(proposer: Cli, tmp_path: Path) -> None:
    """An empty name, such as compose files pass on, does not hide the file's."""
    lines = [*(f"{name}={value}" for name, value in GOOD.items()), "POLL_INTERVAL=1m"]
    (tmp_path / "good.env").write_text("\n".join(lines))
    found = _problems(proposer("up", "--env-file", str(tmp_path / "good.env"), PRIVATE_KEY="", POLL_INTERVAL="soon"))
    assert found[0].startswith("POLL_INTERVAL: ")
    assert found[0].endswith("not 'soon'")
    assert not [problem for problem in found if problem.startswith("PRIVATE_KEY: ")]


def test_endpoints_that_are_away_are_named_beside_a_wrong_setting(proposer: Cli) -> None:
    """All at once: what shows without asking anybody, and what only asking shows."""
    found = _problems(proposer("up", **GOOD, POLL_INTERVAL="soon"))
    named = [problem.split(":")[0] for problem in found]
    assert named == ["POLL_INTERVAL", "L1_RPC", "L2_NODE_RPC", "OP_SUCCINCT_SERVER_URL"]


def test_apply_needs_a_prefect_server_and_a_ledger(proposer: Cli) -> None:
    """There is nothing to apply to on a machine where `up` starts both."""
    found = _problems(proposer("apply", **GOOD))
    assert [problem.split(":")[0] for problem in found] == ["PREFECT_API_URL", "DATABASE_URL"]
    (problem,) = _problems(proposer("apply", **GOOD, DATABASE_URL="postgresql://host/ledger"))
    assert problem == "PREFECT_API_URL: not set; set it to the Prefect server to apply to"


def test_orders_need_the_ledger_only_and_say_what_is_missing(proposer: Cli, tmp_path: Path) -> None:
    """No other setting is asked for; nobody leads, so the order is written down for later."""
    for arguments in (("pause", "--why", "x"), ("resume",), ("retry", "1"), ("cancel", "1", "--why", "x")):
        (problem,) = _problems(proposer(*arguments))
        assert problem.startswith(f"DATABASE_URL: not set, and {tmp_path / 'home' / 'ledger.url'} does not exist")


def test_an_order_without_a_leader_is_written_down(proposer: Cli, database_url: str) -> None:
    done = proposer("pause", "--why", "night", DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pause: written down as order 1. No proposer process leads now")
    unknown = proposer("retry", "7", DATABASE_URL=database_url)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "there is no proof request 7" in unknown.stderr


def test_a_log_level_that_is_none_is_a_problem_beside_the_others(proposer: Cli) -> None:
    found = _problems(proposer("up", LOG_LEVEL="loud", **(GOOD | {"PRIVATE_KEY": ""})))
    assert found[0] == "LOG_LEVEL: 'loud' is not a level; set it to one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
    assert found[1].startswith("PRIVATE_KEY: not set")


def test_up_names_every_endpoint_that_is_away_and_ends(proposer: Cli, database_url: str) -> None:
    """The very first start needs them all; nothing is left running and Prefect's server is not started."""
    away = f"http://127.0.0.1:{free_port()}"
    done = proposer(
        "up", **(GOOD | {"L1_RPC": f"{away}/l1-api-key-1234", "L2_NODE_RPC": away}), DATABASE_URL=database_url
    )
    found = [line for line in done.stderr.splitlines() if line.startswith("  - ")]
    assert done.returncode == 2
    assert [line[4:].split(":")[0] for line in found] == ["L1_RPC", "L2_NODE_RPC", "OP_SUCCINCT_SERVER_URL"]


def test_up_says_that_a_database_cannot_be_reached(proposer: Cli) -> None:
    url = f"postgresql://me:db-pass-word@127.0.0.1:{free_port()}/ledger"
    done = proposer("up", **GOOD, DATABASE_URL=url)
    assert done.returncode == 2
    assert "the ledger's database cannot be reached" in done.stderr
    assert "db-pass-word" not in done.stderr
