"""Run an operator's command: errors become sentences and exit statuses."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

from deployments.console import refuse
from proposer.errors import InvalidSettings, ProposerError, UnknownRequest

T = TypeVar("T")


def run(job: Coroutine[Any, Any, T]) -> T:
    """Run to the end; status 1 where the request is unknown, 2 where the desk cannot be opened or read."""
    try:
        return asyncio.run(job)
    except UnknownRequest as error:
        typer.echo(f"proposer: {error}", err=True)
        raise typer.Exit(1) from None
    except InvalidSettings as error:
        refuse(error.problems)
    except ProposerError as error:
        refuse([str(error)])
