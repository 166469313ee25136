"""How reasons and times look, as JSON and for a person."""

from collections.abc import Mapping
from typing import Any

import orjson
import typer
from rich.markup import escape

from proposer.reasons import Reason, Severity

COLOUR: Mapping[Severity, str] = {Severity.WAITING: "cyan", Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}


def reason_json(reason: Reason) -> dict[str, Any]:
    """Return a reason as it is in every JSON output."""
    return {
        "code": reason.code.value,
        "severity": reason.severity.value,
        "sentence": reason.sentence,
        "remedy": reason.remedy,
        "facts": dict(reason.facts),
    }


def reason_line(reason: Reason) -> str:
    """Return a reason as rich markup: its name in the colour of its severity, and its sentence."""
    return f"[{COLOUR[reason.severity]}]{reason.code.value}[/]  {escape(reason.sentence)}"


def print_json(value: object) -> None:
    """Print JSON, indented."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def ago(seconds: float | None) -> str:
    """Say a time span in the two largest units that matter."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole < 172_800 else f"{whole // 86_400} days"
