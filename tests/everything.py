"""All that a ledger's database holds: every row of every table, and where every sequence stands."""

from typing import Any

import psycopg
from psycopg import sql


def everything(url: str, *, leaving_out: frozenset[str] = frozenset()) -> dict[str, list[tuple[Any, ...]]]:
    """Read it all, by table or sequence."""
    with psycopg.connect(url, autocommit=True) as connection:
        named = connection.execute(
            "SELECT relname, relkind FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE n.nspname = 'public' AND relkind IN ('r', 'S') ORDER BY relname"
        ).fetchall()
        found: dict[str, list[tuple[Any, ...]]] = {}
        for name, kind in named:
            columns = sql.SQL("*" if kind == "r" else "last_value, is_called")
            statement = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(name))
            if name not in leaving_out:
                found[name] = sorted(connection.execute(statement).fetchall(), key=repr)
        return found
