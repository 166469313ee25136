"""Kill the leader at a place, and measure how long the other one takes to do its first useful work."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chaos.pair import Instance
from tests.chaos.points import ANY_TIME, LEADERS_OWN, Point
from tests.chaos.watch import Leader
from tests.chaos.world import World

REACHED_SECONDS = 30.0
"""How long a place may stay unreached before the leader is killed at whatever it does."""
RECOVERY_SECONDS = 60.0
"""When to stop waiting for a takeover; one of 15 s is a failure already."""
STOP_SECONDS = 15.0
_CUT_SECONDS = 0.05
"""After the kill, until the closed connections have reached the other side."""


class Stalled(Exception):
    """Nothing went on: the run's worst failure."""


@dataclass(frozen=True)
class Recovery:
    """What was done to a leader, and how long its work lay still."""

    what: str
    seconds: float
    epoch: int
    load: float
    """The machine's load average: where it is far above the number of CPUs, the seconds say little of the product."""


async def kill_leader(world: World, point: Point) -> tuple[Point, Recovery]:
    """Kill the leader when it reaches the point; start it again, and wait until the other one works.

    Return where it really was killed: at any time, if the point was not reached.
    """
    victim, before = await _a_leader(world)
    killed: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def kill(facts: Mapping[str, Any]) -> bool:
        if not point.takes(facts, victim.name) or not await _still_leads(world, before):
            return False
        at = time.monotonic()
        await world.pair.kill(victim)
        await asyncio.sleep(_CUT_SECONDS)
        killed.set_result(at)
        return True

    if point == ANY_TIME:
        await asyncio.sleep(world.dice.uniform(0, 2))
        if not await kill({}):
            return await kill_leader(world, point)
    elif not await _reached(world, point, kill):
        return await kill_leader(world, ANY_TIME)
    restart = asyncio.create_task(_start_again(world, victim))
    try:
        return point, await _recovery(world, f"kill at {point}", await killed, before)
    finally:
        await restart


async def _reached(world: World, point: Point, act: Callable[[Mapping[str, Any]], Awaitable[bool]]) -> bool:
    """Act at a point; return whether it was reached in time."""
    acting = asyncio.Lock()

    async def alone(facts: Mapping[str, Any]) -> bool:
        async with acting:
            return await act(facts)

    trap = world.devnet.traps.arm(point.place, alone, skip=world.dice.randrange(6) if point.often else 0)
    deadline = time.monotonic() + REACHED_SECONDS
    while not trap.sprung and time.monotonic() < deadline:  # noqa: ASYNC110  (whoever reaches it)
        await asyncio.sleep(0.02)
    trap.disarm()
    async with acting:  # one that is just being acted on counts
        pass
    await asyncio.sleep(0)
    return trap.sprung


async def stop_leader(world: World) -> Recovery:
    """SIGSTOP the leader, let the other one take over, and wake it up: it must find that it leads no more."""
    victim, before = await _a_leader(world)
    await asyncio.sleep(world.dice.uniform(0, 2))
    victim.held_down = True
    victim.signal(signal.SIGSTOP)
    at = time.monotonic()
    try:
        recovery = await _recovery(world, "SIGSTOP", at, before)
        await asyncio.sleep(max(0.0, at + STOP_SECONDS - time.monotonic()))
    finally:
        victim.signal(signal.SIGCONT)
        victim.held_down = False
    return recovery


async def kill_standby(world: World) -> None:
    """Kill the one that stands by; the leader must not notice."""
    leader, _ = await _a_leader(world)
    standby = world.pair.other(leader)
    await world.pair.kill(standby)
    await asyncio.sleep(world.dice.uniform(0, 1))
    world.pair.start(standby)


async def both_ready(world: World) -> None:
    """Wait until one leads and the other stands by."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while not all(each.ready for each in world.pair.instances) or await world.pair.leading(world.watch) is None:
        if time.monotonic() > deadline:
            states = ", ".join(f"{each.name} ready: {each.ready}" for each in world.pair.instances)
            raise Stalled(f"there was no leader with a standby for {RECOVERY_SECONDS:.0f} s ({states})")
        await asyncio.sleep(0.1)


async def _a_leader(world: World) -> tuple[Instance, Leader]:
    await both_ready(world)
    while True:
        instance, leader = await world.pair.leading(world.watch), await world.watch.leader()
        if instance is not None and leader is not None and leader.pid == instance.pid:
            return instance, leader
        await asyncio.sleep(0.1)


async def _still_leads(world: World, leader: Leader) -> bool:
    now = await world.watch.leader()
    return now is not None and (now.pid, now.epoch) == (leader.pid, leader.epoch)


async def _start_again(world: World, victim: Instance) -> None:
    await asyncio.sleep(world.dice.uniform(0, 1))
    world.pair.start(victim)


async def _recovery(world: World, what: str, at: float, before: Leader) -> Recovery:
    """Wait until a later epoch leads and has changed a request, or one of its calls has arrived somewhere."""
    reached: int | None = None
    while time.monotonic() - at < RECOVERY_SECONDS:
        leader = await world.watch.leader()
        if leader is not None and leader.epoch > before.epoch:
            now = sum(world.devnet.traps.counts[place] for place in LEADERS_OWN)
            reached = now if reached is None else reached
            if now > reached or await world.watch.acted(before.epoch + 1):
                return Recovery(what, time.monotonic() - at, leader.epoch, os.getloadavg()[0])
        await asyncio.sleep(0.05)
    raise Stalled(f"{what}: no useful work within {RECOVERY_SECONDS:.0f} s")
