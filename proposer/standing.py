"""Where everything stands, as `proposer status` and the status page in Prefect show it: the same for both."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from proposer.expectation import expected
from proposer.orders import Order
from proposer.reasons import reason_json
from proposer.requests import ProofRequest, Status
from proposer.situation import Situation

SHOWN = (Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.COMPLETE, Status.PARKED)
"""What is not settled yet; the ended are history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A situation, and what else of the ledger and the contract is shown with it."""

    name: str
    contract: str
    situation: Situation
    paused: Order | None
    orders: Sequence[Order]
    block_seconds: int | None
    """Between two L2 blocks; None while the contract cannot be read."""


def standing_json(standing: Standing) -> dict[str, Any]:
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
