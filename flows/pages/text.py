"""Markdown as Prefect's UI shows it: what others wrote is quoted, never obeyed."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")
MOST = 300
"""Letters of a sentence that others wrote."""


def plain(value: object, most: int = MOST) -> str:
    """Return text as it stands: one line, without markup of its own, not longer than this."""
    line = " ".join(str(value).split())
    line = line if len(line) <= most else line[: most - 1] + "…"
    return _SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """Return a table; columns of numbers are set to the right. Empty without rows."""
    if not rows:
        return ""
    rule = ["---:" if i in numbers else "---" for i in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def utc(at: datetime) -> str:
    """Say a time, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def run_link(name: str, run: str | None) -> str:
    """Name a run with a link to it, where Prefect has it; relative, so that it stays within the UI it is clicked in."""
    return f"[{plain(name)}](../../runs/flow-run/{run})" if run else plain(name)


def hash_link(tx_hash: str, explorer: str | None) -> str:
    """Show a transaction's hash, with a link where an explorer is set."""
    short = f"`{tx_hash[:10]}…{tx_hash[-8:]}`"
    return f"[{short}]({explorer}/tx/{tx_hash})" if explorer else f"`{tx_hash}`"


def paragraphs(*parts: str) -> str:
    """Put the parts under one another; empty ones are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"
