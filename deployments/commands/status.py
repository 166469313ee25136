"""`proposer status`: where everything stands, as a table or as JSON of a stable shape."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.commands.running import run
from deployments.commands.shown import print_json, reason_line
from deployments.console import AsJson, EnvFile, Name, environment_of, point_prefect_at, values_of
from deployments.environment import Environment
from proposer.standing import Standing, standing_json
from proposer.units import ago


def status(as_json: AsJson = False, name: Name = None, env_file: EnvFile = None) -> None:
    """Show who leads, the heads, how far behind, what is under way, and every active reason."""
    environment = environment_of(env_file, name)
    point_prefect_at(environment)
    found = run(_standing(environment, values_of(env_file, name)))
    shown = standing_json(found)
    if as_json:
        print_json(shown)
        return
    console = Console(highlight=False)
    _show(shown, console)
    for reason in found.situation.reasons():
        console.print(f"{reason_line(reason)} {escape(reason.remedy)}")


async def _standing(environment: Environment, values: dict[str, str]) -> Standing:
    from deployments.desk import open_desk
    from flows import desk

    async with open_desk(environment, values) as proposer:
        return await desk.standing(proposer, await desk.look(proposer))


def _show(shown: dict[str, Any], console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    leader, heads, lag, following = shown["leader"], shown["heads"], shown["lag"], shown["next_output"]
    table.add_row("contract", f"{shown['contract']} ({escape(shown['name'])})")
    leads = f"{escape(leader['owner'])} since {leader['since']} (epoch {leader['epoch']})" if leader else "nobody"
    table.add_row("leads", leads)
    table.add_row("settled", f"L2 block {_or_unknown(heads['contract'])}")
    table.add_row("finalized", f"L2 block {_or_unknown(heads['finalized'])}")
    table.add_row("L1", f"head {_or_unknown(heads['l1'])}, safe {_or_unknown(heads['safe_l1'])}")
    table.add_row("behind", f"{_or_unknown(lag['blocks'])} blocks, {_or_unknown(lag['minutes'])} minutes")
    due = f"in about {ago(following['seconds'])}" if following["seconds"] is not None else "not known when"
    table.add_row("next output", f"block {_or_unknown(following['block'])}, {due}. {escape(following['waits_for'])}")
    counts = [
        f"{found['count']} {name} (oldest {ago(found['oldest_seconds'])})"
        for name, found in shown["requests"].items()
        if found["count"]
    ]
    table.add_row("requests", ", ".join(counts) or "none")
    for tx in shown["transactions"]:
        age = ago(tx["age_seconds"])
        table.add_row("transaction", f"{tx['purpose']} {tx['status']}, nonce {tx['nonce']}, {age} old, {tx['hash']}")
    if shown["paused"]:
        paused = shown["paused"]
        table.add_row("paused", escape(f"by {paused['who']} at {paused['at']}: {paused['why']}"))
    for order in shown["orders"]:
        table.add_row("order waits", escape(f"{order['kind']} {order['request'] or ''} by {order['who']}"))
    console.print(table)


def _or_unknown(value: object) -> object:
    return "unknown" if value is None else value
