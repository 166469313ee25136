"""Backups of the ledger, with the command line that operators use, on a real PostgreSQL."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from blocks.ledger import Ledger
from blocks.ledger.database import LedgerIdentity
from infra.backup.tools import BackupError, find
from tests.infra.production import ROOT

PASSWORD = "not-to-be-shown"


def _backup(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "infra.backup", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def _with_identity(ledger: Ledger) -> None:
    await ledger.claim_identity(LedgerIdentity(1, 2, "0x" + "1" * 40))


async def test_a_ledger_goes_through_a_file_and_back(
    ledger: Ledger, epoch: int, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """While its proposer leads; restored it is the same contract's, paused, led by nobody, and known under a new id."""
    await _with_identity(ledger)
    file = tmp_path / "ledger.dump"
    dumped = _backup("dump", str(file), DATABASE_URL=database_url)
    assert (dumped.returncode, dumped.stderr) == (0, "")
    assert "contract 0x1111" in dumped.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert _files(tmp_path) == ["ledger.dump"]
    url_file = tmp_path / "ledger.url"
    url_file.write_text(empty_database_url + "\n")
    done = _backup("restore", str(file), DATABASE_URL_FILE=str(url_file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("restored and paused; contract 0x1111")
    restored = Ledger(empty_database_url)
    await restored.migrate()  # finds nothing to do
    assert await restored.identity() == await ledger.identity()
    assert await restored.ledger_id() != await ledger.ledger_id()
    pause = await restored.paused()
    assert pause is not None
    assert (pause.who, "docs/operations.md" in pause.why) == ("restore", True)
    with psycopg.connect(empty_database_url) as connection:
        (row,) = connection.execute("SELECT epoch, expires_at < now() FROM leadership").fetchall()
    assert row == (epoch, True)
    await restored.close()


async def test_a_database_that_is_not_empty_is_not_restored_into(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    """A ledger that is in use is never overwritten."""
    await _with_identity(ledger)
    file = tmp_path / "ledger.dump"
    _backup("dump", str(file), DATABASE_URL=database_url)
    done = _backup("restore", str(file), DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "the database is not empty: create a new one" in done.stderr
    assert await ledger.paused() is None


def test_a_broken_file_leaves_the_database_empty(empty_database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "ledger.dump"
    file.write_bytes(b"PGDMP and then nothing")
    done = _backup("restore", str(file), DATABASE_URL=empty_database_url)
    assert done.returncode == 1
    assert "pg_restore ended with status" in done.stderr
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_what_cannot_be_backed_up_is_said_without_the_password(empty_database_url: str, tmp_path: Path) -> None:
    """No database, one that is away, one that holds no ledger; and no file is left that looks like a backup."""
    file = str(tmp_path / "ledger.dump")
    away = f"postgresql://user:{PASSWORD}@127.0.0.1:1/ledger"
    for url, sentence in (
        ("", "DATABASE_URL: not set"),
        (away, "DATABASE_URL: cannot be reached"),
        (f"postgresql://user:{PASSWORD}@[/ledger", "DATABASE_URL: not a postgresql:// address"),
        (empty_database_url, "the database holds no ledger"),
    ):
        done = _backup("dump", file, DATABASE_URL=url)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert PASSWORD not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tools_older_than_the_server_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old pg_dump on PATH is passed over for the embedded PostgreSQL's; without any the remedy is said."""
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find("pg_dump", 16) != str(old)
    with pytest.raises(BackupError, match="install the client tools of PostgreSQL 99"):
        find("pg_dump", 99)
