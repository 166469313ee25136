"""What goes wrong at the edge of a JSON-RPC server, whoever is behind it: said outright, or by a seeded share."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from infra.devnet.server import Dropped, hung_up


@dataclass(kw_only=True)
class EdgeFaults:
    """What a server does wrong now; change the fields at run time.

    The rates are shares of HTTP requests, the same ones for the same seed; 500s and drops exclude one another.
    """

    text_500: bool = False
    hang: bool = False
    drop: bool = False
    # Answer 429 with this Retry-After.
    retry_after_s: int | None = None
    error_rate: float = 0.0
    drop_rate: float = 0.0
    slow_rate: float = 0.0
    slow_s: float = 0.0
    seed: int = 0
    # How many requests the dice were thrown for; 0 begins the seed's sequence anew.
    thrown: int = 0


async def fail(faults: EdgeFaults, request: Request, applied: Counter[str]) -> Response | None:
    """Return what a request is answered with instead of its answer, or None; read the request's body first."""
    error, drop = faults.text_500, faults.drop
    if faults.error_rate or faults.drop_rate or faults.slow_rate:
        dice = random.Random(f"{faults.seed}/{faults.thrown}")
        faults.thrown += 1
        what, when = dice.random(), dice.random()
        error = error or what < faults.error_rate
        drop = drop or faults.error_rate <= what < faults.error_rate + faults.drop_rate
        if when < faults.slow_rate:
            applied["slow"] += 1
            await asyncio.sleep(faults.slow_s)
    if drop:
        applied["drop"] += 1
        return Dropped()
    if faults.hang:
        applied["hang"] += 1
        await hung_up(request)
        return Dropped()
    if error:
        applied["text_500"] += 1
        return PlainTextResponse("internal server error", 500)
    if faults.retry_after_s is not None:
        applied["status_429"] += 1
        return PlainTextResponse("Too Many Requests", 429, {"retry-after": str(faults.retry_after_s)})
    return None


class Call(NamedTuple):
    """One call of a JSON-RPC body."""

    id: Any
    method: str
    params: Any


def calls_of(parsed: Any) -> list[Call]:
    """Return every call in a JSON-RPC body, single or batch, as far as it is one."""
    return [
        Call(item.get("id"), item["method"], item.get("params") or [])
        for item in _items(parsed)
        if isinstance(item.get("method"), str)
    ]


def answer_to(call: Call, parsed: Any) -> dict[str, Any] | None:
    """Return a call's answer in a JSON-RPC answer, single or batch."""
    return next((item for item in _items(parsed) if item.get("id") == call.id), None)


def _items(parsed: Any) -> list[dict[str, Any]]:
    return [item for item in (parsed if isinstance(parsed, list) else [parsed]) if isinstance(item, dict)]
