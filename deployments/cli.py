"""The command line: `proposer up`, `apply`, `demo`."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from dotenv import dotenv_values

from deployments.environment import Environment, InvalidEnvironment, client_environment, read_environment
from proposer.errors import FixConfiguration, InvalidSettings, ProposerError

app = typer.Typer(
    help="Proposer for OP Succinct rollups.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

EnvFile = Annotated[
    Path | None, typer.Option(help="File with NAME=value lines; what is set in the environment itself comes first.")
]


@app.command()
def up(env_file: EnvFile = None) -> None:
    """Start what is missing on this machine and propose until SIGTERM."""
    environment = _environment(env_file)
    _point_prefect_at(environment)
    from deployments.up import up as run

    _run(lambda stop: run(environment, stop))


@app.command()
def apply(env_file: EnvFile = None) -> None:
    """Save blocks, work pool and deployments to the Prefect server of PREFECT_API_URL. Running it again is harmless."""
    environment = _environment(env_file)
    if environment.prefect_api_url is None or environment.database_url is None:
        missing = [
            f"{name}: not set; {remedy}"
            for name, value, remedy in (
                ("PREFECT_API_URL", environment.prefect_api_url, "set it to the Prefect server to apply to"),
                ("DATABASE_URL", environment.database_url, "set it to this rollup's ledger"),
            )
            if value is None
        ]
        _refuse(missing)
    _point_prefect_at(environment)
    import httpx
    from prefect.exceptions import PrefectException

    from deployments.apply import apply as run

    try:
        lines = asyncio.run(run(environment, environment.database_url.get_secret_value()))
    except (httpx.HTTPError, PrefectException) as error:
        _refuse([f"PREFECT_API_URL: {type(error).__name__}: {error}; check the address and that a Prefect server runs"])
    for line in lines:
        typer.echo(line)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Stay up afterwards, with the Prefect UI.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the devnet's faults and times.")] = 1,
) -> None:
    """Run the whole job against a local devnet with faults, and check the result on the chain."""
    from deployments.demo import demo as run

    raise typer.Exit(run(keep=keep, seed=seed))


def _environment(env_file: Path | None) -> Environment:
    values: dict[str, str] = {}
    if env_file is not None:
        if not env_file.is_file():
            _refuse([f"--env-file: {env_file} does not exist; create it or leave the option out"])
        try:
            values = {name: value for name, value in dotenv_values(env_file).items() if value is not None}
        except (OSError, UnicodeDecodeError) as error:
            _refuse([f"--env-file: {env_file} cannot be read as text ({type(error).__name__}): check the file"])
    values |= {name: value for name, value in os.environ.items() if value.strip()}
    problems = _log_to_stderr(values.get("LOG_LEVEL", "INFO").strip())
    try:
        environment = read_environment(values)
    except InvalidEnvironment as error:
        from deployments.preflight import problems_of

        _refuse([*problems, *error.problems, *asyncio.run(problems_of(error.parts))])
    if problems:
        _refuse(problems)
    return environment


def _point_prefect_at(environment: Environment) -> None:
    """Set Prefect's settings; it reads them when it is imported, so that comes after this."""
    (environment.home / "prefect").mkdir(parents=True, exist_ok=True)
    os.environ |= client_environment(environment)


def _run(job: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
    """Run a job until it ends; the first SIGTERM or SIGINT sets its event, the second ends the process.

    The event loop runs in a thread of its own: in the main thread Prefect's flow engine takes SIGTERM over and crashes
    the cycle that is running.
    """
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    errors: list[ProposerError] = []
    ended: list[bool] = []

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(job(stop))
            ended.append(True)
        except ProposerError as error:
            errors.append(error)

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(1)  # the ledger is true at any instruction
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    thread = threading.Thread(target=run, name="proposer")
    thread.start()
    thread.join()
    if errors and isinstance(errors[0], FixConfiguration):
        _refuse(errors[0].problems if isinstance(errors[0], InvalidSettings) else [str(errors[0])])
    if errors:
        typer.echo(f"proposer: ended: {errors[0]}", err=True)
    if not ended:
        raise typer.Exit(1)  # a defect: the thread has said its traceback


def _refuse(problems: Sequence[str]) -> NoReturn:
    count = "problem" if len(problems) == 1 else "problems"
    typer.echo(f"proposer: {len(problems)} {count}; nothing was sent and nothing spent", err=True)
    for problem in problems:
        typer.echo(f"  - {problem}", err=True)
    raise typer.Exit(2)


def _log_to_stderr(level: str) -> list[str]:
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


if __name__ == "__main__":
    app()
