"""How JSON and reasons look on a terminal."""

from collections.abc import Mapping

import orjson
import typer
from rich.markup import escape

from proposer.reasons import Reason, Severity

COLOUR: Mapping[Severity, str] = {Severity.WAITING: "cyan", Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}


def reason_line(reason: Reason) -> str:
    """Return a reason as rich markup: its name in the colour of its severity, and its sentence."""
    return f"[{COLOUR[reason.severity]}]{reason.code.value}[/]  {escape(reason.sentence)}"


def print_json(value: object) -> None:
    """Print JSON, indented."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
