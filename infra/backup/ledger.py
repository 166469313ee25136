"""Dump a ledger to a file, and restore a file into an empty database so that a proposer can go on from it."""

import os
from pathlib import Path

import psycopg

from infra.backup.tools import BackupError, run

PAUSED_BECAUSE = "restored from a backup; see docs/operations.md before `proposer resume`"


def dump(url: str, file: Path) -> str:
    """Write the ledger to a file; a proposer may be at work on it meanwhile. Return what is in the file.

    The file is there when it is complete, never half. It holds no key, but every proof: keep it to yourself.
    """
    with _connect(url) as connection:
        major, said = _major(connection), _describe(connection)
    part = file.with_name(file.name + ".part")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={part}"], url, major)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return f"{file}: {file.stat().st_size} bytes; {said}"


def restore(url: str, file: Path) -> str:
    """Restore a file into the empty database of the URL; return what is in it now.

    It starts paused: nobody knows what was asked for and sent since the backup. It is told from the database it was
    made of, so that requests with the numbers of lost ones are not shown in the runs of those. Nobody leads it.
    """
    if not file.is_file():
        raise BackupError(f"{file} does not exist")
    with _connect(url) as connection:
        major = _major(connection)
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    if tables != (0,):
        raise BackupError("the database is not empty: create a new one (CREATE DATABASE ...) and restore into that")
    arguments = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    database = psycopg.conninfo.conninfo_to_dict(url).get("dbname")
    run("pg_restore", [*arguments, f"--dbname={database}", str(file)], url, major)
    with _connect(url) as connection, connection.transaction():
        connection.execute("UPDATE identity SET ledger_id = gen_random_uuid()::text")
        connection.execute("UPDATE leadership SET owner = 'restored', expires_at = now() - interval '1 second'")
        connection.execute(
            "INSERT INTO operator_orders (kind, who, why, done_at, outcome) "
            "VALUES ('pause', 'restore', %s, now(), 'in force')",
            [PAUSED_BECAUSE],
        )
        said = _describe(connection)
    return f"restored and paused; {said}"


def _connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    try:
        return psycopg.connect(url, connect_timeout=10, autocommit=True)
    except psycopg.OperationalError as error:
        raise BackupError(f"DATABASE_URL: cannot be reached: {str(error).splitlines()[0]}") from error
    except psycopg.ProgrammingError as error:  # its text quotes the address
        raise BackupError("DATABASE_URL: not a postgresql:// address") from error


def _major(connection: "psycopg.Connection[tuple[object, ...]]") -> int:
    return connection.info.server_version // 10_000


def _describe(connection: "psycopg.Connection[tuple[object, ...]]") -> str:
    """Say what a ledger holds. Raises `BackupError` where the database holds none."""
    try:
        row = connection.execute(
            "SELECT (SELECT contract FROM identity), (SELECT count(*) FROM proof_requests), (SELECT count(*) FROM "
            "proofs), (SELECT count(*) FROM l1_transactions), (SELECT max(at) FROM request_events)"
        ).fetchone()
    except psycopg.errors.UndefinedTable as error:
        raise BackupError("the database holds no ledger: check DATABASE_URL") from error
    assert row is not None  # it has no FROM of its own
    contract, requests, proofs, transactions, last = row
    return (
        f"contract {contract}, {requests} requests, {proofs} proofs, {transactions} L1 transactions, last event {last}"
    )
