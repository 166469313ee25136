"""What every command shares: its environment, Prefect's settings, and how problems are said."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from dotenv import dotenv_values

from deployments.environment import Environment, InvalidEnvironment, client_environment, read_environment

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

EnvFile = Annotated[
    Path | None, typer.Option(help="File with NAME=value lines; what is set in the environment itself comes first.")
]
Name = Annotated[
    str | None,
    typer.Option(help="The rollup's name in Prefect; comes before PROPOSER_NAME, whose default is proposer."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON of a stable shape (docs/operator.md).")]


def values_of(env_file: Path | None, name: str | None = None) -> dict[str, str]:
    """Read the file, the environment and --name; ends the process where the file cannot be read."""
    values: dict[str, str] = {}
    if env_file is not None:
        if not env_file.is_file():
            refuse([f"--env-file: {env_file} does not exist; create it or leave the option out"])
        try:
            values = {name: value for name, value in dotenv_values(env_file).items() if value is not None}
        except (OSError, UnicodeDecodeError) as error:
            refuse([f"--env-file: {env_file} cannot be read as text ({type(error).__name__}): check the file"])
    values |= {key: value for key, value in os.environ.items() if value.strip()}
    return values if name is None else values | {"PROPOSER_NAME": name}


def environment_of(
    env_file: Path | None, name: str | None = None, *, dry_run: bool = False, quiet: bool = False
) -> Environment:
    """Read the whole environment; ends the process with every problem where there are any.

    `dry_run` comes before DRY_RUN. With `quiet` only warnings are logged where LOG_LEVEL is not set.
    """
    values = values_of(env_file, name) | ({"DRY_RUN": "true"} if dry_run else {})
    problems = log_to_stderr(values.get("LOG_LEVEL", "WARNING" if quiet else "INFO").strip())
    try:
        environment = read_environment(values)
    except InvalidEnvironment as error:
        import asyncio

        from deployments.preflight import problems_of

        refuse([*problems, *error.problems, *asyncio.run(problems_of(error.parts))])
    if problems:
        refuse(problems)
    return environment


def point_prefect_at(environment: Environment) -> None:
    """Set Prefect's settings; it reads them when it is imported, so that comes after this."""
    (environment.home / "prefect").mkdir(parents=True, exist_ok=True)
    os.environ |= client_environment(environment)


def refuse(problems: Sequence[str]) -> NoReturn:
    """Say every problem and end with status 2."""
    count = "problem" if len(problems) == 1 else "problems"
    typer.echo(f"proposer: {len(problems)} {count}; nothing was sent and nothing spent", err=True)
    for problem in problems:
        typer.echo(f"  - {problem}", err=True)
    raise typer.Exit(2)


def log_to_stderr(level: str) -> list[str]:
    """Log the proposer's own lines; return what is wrong with the level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger("proposer")
    root.addHandler(handler)
    root.propagate = False
    if level.upper() not in LEVELS:
        return [f"LOG_LEVEL: {level!r} is not a level; set it to one of {', '.join(LEVELS)}"]
    root.setLevel(level.upper())
    return []
