"""The command line: each command is registered here and does its work elsewhere."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Annotated

import typer

from deployments.commands import doctor, explain, orders, plan, simulate, status
from deployments.console import EnvFile, Name, environment_of, point_prefect_at, refuse
from proposer.errors import FixConfiguration, InvalidSettings, ProposerError

app = typer.Typer(
    help="Proposer for OP Succinct rollups.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.command()
def up(
    name: Name = None,
    env_file: EnvFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide and show every cycle, and do nothing; needs no key. Also DRY_RUN.")
    ] = False,
) -> None:
    """Start what is missing on this machine and propose until SIGTERM."""
    environment = environment_of(env_file, name, dry_run=dry_run)
    point_prefect_at(environment)
    if environment.dry_run:
        from deployments.dry_run import watch

        _run(lambda stop: watch(environment, stop))
        return
    from deployments.up import up as run

    _run(lambda stop: run(environment, stop))


@app.command()
def apply(name: Name = None, env_file: EnvFile = None) -> None:
    """Save blocks, work pool and deployments to the Prefect server of PREFECT_API_URL. Running it again is harmless."""
    environment = environment_of(env_file, name)
    if environment.dry_run:
        refuse(["DRY_RUN: is true, and apply sets up a proposer that signs; unset it, and set its signer"])
    if environment.prefect_api_url is None or environment.database_url is None:
        missing = [
            f"{name}: not set; {remedy}"
            for name, value, remedy in (
                ("PREFECT_API_URL", environment.prefect_api_url, "set it to the Prefect server to apply to"),
                ("DATABASE_URL", environment.database_url, "set it to this rollup's ledger"),
            )
            if value is None
        ]
        refuse(missing)
    point_prefect_at(environment)
    import httpx
    from prefect.exceptions import PrefectException

    from deployments.apply import apply as run
    from deployments.apply import check_names
    from deployments.prefect_errors import brief

    try:
        problems, unchecked = asyncio.run(check_names(environment))
        if problems:
            refuse(problems)
        lines = asyncio.run(run(environment, environment.database_url.get_secret_value()))
    except (httpx.HTTPError, PrefectException) as error:
        refuse([f"PREFECT_API_URL: {brief(error)}; check the address and that a Prefect server of this version runs"])
    if unchecked:
        typer.echo(f"proposer: {unchecked}", err=True)
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
        refuse(errors[0].problems if isinstance(errors[0], InvalidSettings) else [str(errors[0])])
    if errors:
        typer.echo(f"proposer: ended: {errors[0]}", err=True)
    if not ended:
        raise typer.Exit(1)  # a defect: the thread has said its traceback


for command in (
    status.status,
    explain.explain,
    doctor.doctor,
    plan.plan,
    simulate.simulate,
    orders.retry,
    orders.cancel,
    orders.pause,
    orders.resume,
):
    app.command()(command)

if __name__ == "__main__":
    app()
