"""`proposer doctor`: named checks of the live environment, each with a remedy; the exit status is the worst level."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from deployments.commands.running import run
from deployments.commands.shown import print_json
from deployments.console import AsJson, EnvFile, Name, log_to_stderr, point_prefect_at, values_of
from deployments.environment import Environment, InvalidEnvironment, read_environment
from proposer.errors import ProposerError

if TYPE_CHECKING:
    from deployments.checks.bench import Finding

_MARKS = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "error": "[bold red]error  [/]"}


def doctor(as_json: AsJson = False, name: Name = None, env_file: EnvFile = None) -> None:
    """Check everything this environment needs. Exit status 0: all is well, 1: warnings, 2: errors."""
    log_to_stderr("ERROR")
    values = values_of(env_file, name)
    try:
        environment = read_environment(values)
    except InvalidEnvironment as invalid:
        _end(
            [_json("settings", "The settings are complete and right.", "error", p, "") for p in invalid.problems],
            as_json,
        )
    point_prefect_at(environment)
    found = run(_examine(environment, values))
    well = _json("settings", "The settings are complete and right.", "ok", f"{environment.name}", "")
    _end([well, *(_of(finding) for finding in found)], as_json)


async def _examine(environment: Environment, values: dict[str, str]) -> "Sequence[Finding]":
    from contextlib import AsyncExitStack

    from deployments.checks import CHECKS
    from deployments.checks.bench import Bench, examine
    from deployments.desk import open_desk

    async with AsyncExitStack() as stack:
        try:
            bench = Bench(environment, await stack.enter_async_context(open_desk(environment, values)))
        except ProposerError as error:
            bench = Bench(environment, None, str(error))
        return [await examine(bench, check) for check in CHECKS]


def _of(finding: "Finding") -> dict[str, Any]:
    found = finding.found
    return _json(finding.name, finding.line, found.level.name.lower(), found.what, found.remedy)


def _json(name: str, line: str, level: str, what: str, remedy: str) -> dict[str, Any]:
    return {"check": name, "line": line, "level": level, "found": what, "remedy": remedy}


def _end(findings: list[dict[str, Any]], as_json: bool) -> NoReturn:
    """Show the findings and end the process with the worst level."""
    levels = [finding["level"] for finding in findings]
    worst = max(("ok", "warning", "error").index(level) for level in levels)
    if as_json:
        print_json({"worst": ("ok", "warning", "error")[worst], "checks": findings})
        raise typer.Exit(worst)
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        console.print(f"{_MARKS[finding['level']]} {escape(finding['line'])} [dim]{escape(finding['found'])}[/]")
        if finding["remedy"]:
            console.print(f"        → {escape(finding['remedy'])}")
    console.print(f"\n{levels.count('ok')} ok, {levels.count('warning')} warnings, {levels.count('error')} errors")
    raise typer.Exit(worst)
