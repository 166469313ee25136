"""One run: every measurement after the other in one world, each failing alone."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.bench.figures import Outcome
from tests.bench.filling import filling
from tests.bench.history import history
from tests.bench.makespan import makespan
from tests.bench.polling import polling
from tests.bench.settling import settling
from tests.bench.weighing import weighing
from tests.bench.world import World

Measure = Callable[[World, Outcome], Awaitable[None]]


async def _settling(world: World, outcome: Outcome) -> None:
    settled = await settling(world, 3 if outcome.short else 18, _say, short=outcome.short)
    outcome.figures += settled.figures
    for whose, those in (("ours", settled.ours), ("seed's", settled.seeds)):
        for one in those:
            _say(
                f"{whose} {one.end}: {one.total:.2f} s, proving {one.proving:.2f}, L1 {one.l1:.2f}, dead {one.dead:.2f}"
            )


async def _history(world: World, outcome: Outcome) -> None:
    sizes, rounds = ((0, 1000, 30_000), 10) if outcome.short else ((0, 10_000, 1_000_000), 15)
    await history(world, outcome, sizes, rounds)


async def _filling(world: World, outcome: Outcome) -> None:
    await filling(world, outcome, 1 if outcome.short else 3)


async def _weighing(world: World, outcome: Outcome) -> None:
    await weighing(world, outcome, *((20, 16) if outcome.short else (100, 64)))


MEASUREMENTS: dict[str, Measure] = {
    "settling": _settling,
    "makespan": makespan,
    "filling": _filling,
    "polling": polling,
    "history": _history,
    "weighing": _weighing,
}


async def bench(folder: Path, *, seed: int, short: bool, only: Sequence[str] | None) -> Outcome:
    """Measure, and return what came of it; whatever happens, it holds what was measured until then."""
    outcome, began = Outcome(seed=seed, short=short), time.monotonic()
    async with World(folder, seed) as world:
        for name in only or MEASUREMENTS:
            _say(f"{time.monotonic() - began:5.1f} s  {name}")
            await world.api.clean()
            try:
                await MEASUREMENTS[name](world, outcome)
            except asyncio.CancelledError:
                outcome.broken.append(f"{name}: stopped by a signal")
                break
            except Exception as error:  # noqa: BLE001 - one that fails must not hide what the others measured
                outcome.broken.append(f"{name}: {error!r}")
    outcome.seconds = time.monotonic() - began
    return outcome


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
