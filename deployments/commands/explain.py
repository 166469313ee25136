"""`proposer explain`: why something is not settled yet."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from deployments.commands.running import run
from deployments.commands.shown import COLOUR, print_json, reason_json, reason_line
from deployments.console import AsJson, EnvFile, Name, environment_of, point_prefect_at, refuse, values_of
from deployments.environment import Environment
from proposer.explain import Explanation


def explain(
    request: Annotated[
        int | None, typer.Argument(help="Number of a proof request; without it, the next output.", min=1)
    ] = None,
    block: Annotated[int | None, typer.Option(help="An L2 block instead of a request.", min=0)] = None,
    as_json: AsJson = False,
    name: Name = None,
    env_file: EnvFile = None,
) -> None:
    """Say why a request, a block or the next output is not settled yet: down to one cause, and what to do."""
    if request is not None and block is not None:
        refuse(["--block: give either a request or a block, not both"])
    environment = environment_of(env_file, name)
    point_prefect_at(environment)
    explanation = run(_explain(environment, values_of(env_file, name), request, block))
    if as_json:
        print_json(explanation_json(explanation))
    else:
        _show(explanation, Console(soft_wrap=True, highlight=False))


async def _explain(
    environment: Environment, values: dict[str, str], request: int | None, block: int | None
) -> Explanation:
    from deployments.desk import open_desk
    from flows import desk

    async with open_desk(environment, values) as proposer:
        return await desk.explain(proposer, await desk.look(proposer), request=request, block=block)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as JSON: the subject, the chain down to the cause, and what else is wrong."""
    return {
        "subject": explanation.subject,
        "cause": reason_json(explanation.cause),
        "chain": [reason_json(reason) for reason in explanation.chain],
        "also": [reason_json(reason) for reason in explanation.also],
    }


def _show(explanation: Explanation, console: Console) -> None:
    console.print(f"[bold]{escape(explanation.subject[0].upper() + explanation.subject[1:])}[/]")
    for depth, reason in enumerate(explanation.chain):
        console.print(f"{'  ' * (depth + 1)}└ {reason_line(reason)}")
    cause = explanation.cause
    console.print(f"\n[{COLOUR[cause.severity]}]Cause: {cause.code.value}[/]\nTo do: {escape(cause.remedy)}")
    if explanation.also:
        console.print("\nAlso:")
    for reason in explanation.also:
        console.print(f"  {reason_line(reason)} {escape(reason.remedy)}")
