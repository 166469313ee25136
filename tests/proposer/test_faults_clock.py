"""Nothing that decides asks this machine for the time: deadlines hold with a skewed clock (F28)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIME_OF_DAY = {"now", "utcnow", "today", "time", "time_ns", "localtime", "gmtime", "fromtimestamp"}
"""What tells the time of day; `time.monotonic` counts seconds and does not follow the clock."""
ROOMS = ("proposer", "flows", "blocks/ledger")
SHOWN = {"record"}
"""Modules whose times are shown in metrics, as everybody's metrics are, and decide nothing."""


@pytest.mark.parametrize(
    "module",
    [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py")) if p.stem not in SHOWN],
    ids=lambda p: p.stem,
)
def test_no_decision_and_no_row_is_told_by_this_machines_clock(module: Path) -> None:
    """Times come from the database, blocks' from the chain: a process that is 10 minutes off decides the same."""
    calls = [
        node.func for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    asked = [
        ast.unparse(call)
        for call in calls
        if isinstance(call, ast.Attribute)
        and call.attr in TIME_OF_DAY
        and isinstance(call.value, ast.Name)
        and call.value.id in {"datetime", "date", "time"}
    ]
    assert asked == []
