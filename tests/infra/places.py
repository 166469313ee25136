"""What the tests of the places do with them: write every arrival down, or cut a client off at one."""

import asyncio
from collections.abc import Mapping
from typing import Any

from infra.devnet.traps import Traps


def record(traps: Traps, place: str = "*") -> list[Mapping[str, Any]]:
    """Return a list that every later arrival at `place` is added to."""
    seen: list[Mapping[str, Any]] = []

    async def note(facts: Mapping[str, Any]) -> bool:
        seen.append(facts)
        return False

    traps.arm(place, note)
    return seen


def names(seen: list[Mapping[str, Any]]) -> list[str]:
    """Return the places of arrivals."""
    return [facts["place"] for facts in seen]


async def eventually(count: int, seen: list[Any]) -> None:
    """Wait until so much has been seen."""
    async with asyncio.timeout(60):
        while len(seen) < count:  # noqa: ASYNC110  (what fills it knows nothing of us)
            await asyncio.sleep(0.01)
