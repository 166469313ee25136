"""`proposer retry`, `cancel`, `pause`, `resume`: leave an order for the leader, and say what became of it."""

import asyncio
import getpass
import os
import socket
import time
from typing import Annotated

import typer

from deployments.commands.running import run
from deployments.console import EnvFile, Name, log_to_stderr, values_of
from proposer.orders import OrderKind

PATIENCE_SECONDS = 10.0
"""How long the leader's outcome is waited for; it looks every second."""

Request = Annotated[int, typer.Argument(help="Number of the proof request.", min=1)]
Why = Annotated[str, typer.Option(help="Why, for those who read the history.")]
NO_WHY = "no reason given"


def retry(request: Request, why: Why = NO_WHY, name: Name = None, env_file: EnvFile = None) -> None:
    """Take a parked or waiting request up at once. One that is paid for is looked at, not asked for again."""
    _order(OrderKind.RETRY, request, why, values_of(env_file, name))


def cancel(request: Request, why: Why, name: Name = None, env_file: EnvFile = None) -> None:
    """Park an open request: it costs nothing more and holds its blocks until it is taken up again with retry."""
    _order(OrderKind.CANCEL, request, why, values_of(env_file, name))


def pause(why: Why, name: Name = None, env_file: EnvFile = None) -> None:
    """Ask for no proof and send no new transaction until resume; what is under way is still looked after."""
    _order(OrderKind.PAUSE, None, why, values_of(env_file, name))


def resume(why: Why = NO_WHY, name: Name = None, env_file: EnvFile = None) -> None:
    """End a pause."""
    _order(OrderKind.RESUME, None, why, values_of(env_file, name))


def _order(kind: OrderKind, request: int | None, why: str, values: dict[str, str]) -> None:
    log_to_stderr("WARNING")
    typer.echo(run(_give(kind, request, why.strip() or NO_WHY, values)))


async def _give(kind: OrderKind, request: int | None, why: str, values: dict[str, str]) -> str:
    from deployments.desk import open_ledger

    async with open_ledger(values) as ledger:
        if request is not None:
            await ledger.request(request)  # one that does not exist is said at once, and no order is left
        number = await ledger.give_order(kind, request, who(), why)
        named = f"{kind.value}{f' {request}' if request is not None else ''}"
        leader = await ledger.leader()
        if leader is None or not leader.leads:
            return (
                f"{named}: written down as order {number}. No proposer process leads now; it is carried out as soon as "
                "one does (proposer up)."
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            order = await ledger.order(number)
            if order.done_at is not None:
                return f"{named}: {order.outcome} (order {number}, carried out by {leader.owner})"
            await asyncio.sleep(0.2)
    return (
        f"{named}: written down as order {number}, and not carried out within {PATIENCE_SECONDS:.0f} s although "
        f"{leader.owner} leads; it is carried out at its next look. See proposer doctor."
    )


def who() -> str:
    """Return who gives an order: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
