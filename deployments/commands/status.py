"""`proposer status`: where everything stands, as a table or as JSON of a stable shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.commands.running import run
from deployments.commands.shown import ago, print_json, reason_json, reason_line
from deployments.console import AsJson, EnvFile, Name, environment_of, point_prefect_at, values_of
from deployments.environment import Environment
from proposer.expectation import expected
from proposer.orders import Order
from proposer.requests import ProofRequest, Status
from proposer.situation import Situation

SHOWN = (Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.COMPLETE, Status.PARKED)
"""What is not settled yet; the ended are history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What `status` shows."""

    name: str
    contract: str
    situation: Situation
    paused: Order | None
    orders: Sequence[Order]
    block_seconds: int | None
    """Between two L2 blocks; None while the contract cannot be read."""


def status(as_json: AsJson = False, name: Name = None, env_file: EnvFile = None) -> None:
    """Show who leads, the heads, how far behind, what is under way, and every active reason."""
    environment = environment_of(env_file, name)
    point_prefect_at(environment)
    standing = run(_standing(environment, values_of(env_file, name)))
    shown = status_json(standing)
    if as_json:
        print_json(shown)
        return
    console = Console(highlight=False)
    _show(shown, console)
    for reason in standing.situation.reasons():
        console.print(f"{reason_line(reason)} {escape(reason.remedy)}")


async def _standing(environment: Environment, values: dict[str, str]) -> Standing:
    from deployments.desk import open_desk
    from flows import desk
    from proposer.errors import ProposerError

    async with open_desk(environment, values) as proposer:
        situation = await desk.look(proposer)
        try:
            seconds = await proposer.oracle.l2_block_time(proposer.l1) if situation.snapshot.oracle else None
        except ProposerError:
            seconds = None
        return Standing(
            name=proposer.name,
            contract=proposer.oracle.address,
            situation=situation,
            paused=await proposer.ledger.paused(),
            orders=await proposer.ledger.orders_to_do(),
            block_seconds=seconds,
        )


def status_json(standing: Standing) -> dict[str, Any]:
    """Return the standing as JSON: times in UTC, ages and spans in seconds, None for what could not be read."""
    situation, snapshot = standing.situation, standing.situation.snapshot
    oracle, leader, now = snapshot.oracle, situation.leader, snapshot.now
    finalized = snapshot.finalized.number if snapshot.finalized is not None else None
    behind = max(0, finalized - oracle.latest_block) if oracle is not None and finalized is not None else None
    minutes = behind * standing.block_seconds / 60 if behind is not None and standing.block_seconds else None
    following = expected(situation)
    seconds = following.seconds if following is not None else None
    return {
        "at": _time(now),
        "name": standing.name,
        "contract": standing.contract,
        "leader": {"owner": leader.owner, "epoch": leader.epoch, "since": _time(leader.since)}
        if leader is not None and leader.leads
        else None,
        "heads": {
            "contract": oracle.latest_block if oracle is not None else None,
            "finalized": finalized,
            "l1": oracle.at.number if oracle is not None else None,
            "safe_l1": oracle.safe if oracle is not None else None,
        },
        "lag": {"blocks": behind, "minutes": round(minutes, 1) if minutes is not None else None},
        "next_output": {
            "block": following.block if following is not None else None,
            "expected_at": _time(now + timedelta(seconds=seconds)) if seconds is not None else None,
            "seconds": round(seconds) if seconds is not None else None,
            "waits_for": following.waits_for if following is not None else "L1 cannot be read.",
        },
        "requests": {one.value.lower(): _of_status(situation, one) for one in SHOWN},
        "transactions": [
            {
                "purpose": tx.action.purpose.value,
                "nonce": tx.nonce,
                "status": tx.status.value,
                "hash": "0x" + (tx.mined or tx.newest.hash).hex(),
                "request": tx.request,
                "age_seconds": round((now - tx.created_at).total_seconds()),
            }
            for tx in snapshot.transactions
        ],
        "paused": _order(standing.paused) if standing.paused is not None else None,
        "orders": [_order(order) for order in standing.orders],
        "reasons": [reason_json(reason) for reason in situation.reasons()],
    }


def _of_status(situation: Situation, status_: Status) -> dict[str, int | None]:
    now = situation.snapshot.now
    found: list[ProofRequest] = [r for r in situation.snapshot.requests if r.status is status_]
    oldest = max(((now - r.since).total_seconds() for r in found), default=None)
    return {"count": len(found), "oldest_seconds": round(oldest) if oldest is not None else None}


def _order(order: Order) -> dict[str, Any]:
    return {
        "order": order.id,
        "kind": order.kind.value,
        "request": order.request,
        "who": order.who,
        "why": order.why,
        "at": _time(order.at),
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


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
