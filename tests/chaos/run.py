"""One chaos run from beginning to end: kill, disturb, kill again; then let everything settle, and judge."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from infra.devnet import check
from tests.chaos.kills import Stalled, both_ready, kill_leader, kill_standby, stop_leader
from tests.chaos.operator import Operator
from tests.chaos.points import Deck
from tests.chaos.verdict import Verdict
from tests.chaos.weather import OUTAGES, Weather
from tests.chaos.world import INTERVAL, Options, World

MOVE_SECONDS = 60.0
"""How long nothing may move in a run's ledger: longer than any back-off of its settings."""
OUTAGE_SECONDS = (3.0, 10.0)
LONG = 50
"""Kills from which on a run takes its time between them, so that outputs are settled while it lasts."""
EXCUSED_SECONDS = 20.0
"""A process may end by itself while a part it starts with is away, and so long after that."""

Disturb = Callable[[], Awaitable[None]]


async def chaos(options: Options) -> Verdict:
    """Run, and return the verdict; whatever happens, it holds what was seen until then."""
    verdict = Verdict(seed=options.seed, asked=options.kills)
    async with World(options) as world:
        run = Run(world, verdict)
        try:
            async with asyncio.timeout(options.limit_seconds):
                await run.kills()
                await run.settle()
        except Stalled as stalled:
            verdict.broken.append(str(stalled))
        except TimeoutError:
            busy = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
            verdict.broken.append(f"not done within {options.limit_seconds:.0f} s, {busy}")
        except asyncio.CancelledError:
            verdict.broken.append("stopped by a signal")
        except Exception as error:  # noqa: BLE001 - a fault of the harness must not hide what was seen until then
            verdict.broken.append(f"the run ended with {error!r}")
        finally:
            await run.judge()
    return verdict


class Run:
    """The director: one thing at a time, all drawn from one seed."""

    def __init__(self, world: World, verdict: Verdict) -> None:
        self._world, self._verdict = world, verdict
        self._weather = Weather(world)
        self._operator = Operator(world)
        self._excused: list[tuple[float, float]] = []
        self._helpers = [asyncio.create_task(each) for each in (world.pair.supervise(), self._operator.work())]

    async def kills(self) -> None:
        """Kill the leader as often as was asked for, with disturbances between."""
        world, verdict = self._world, self._verdict
        deck = Deck(world.dice)
        disturbances = self._disturbances(verdict.asked)
        self._weather.start()
        self._say("one leads, the other stands by")
        for number in range(verdict.asked):
            for name, disturb in disturbances.get(number, []):
                self._say(name)
                await disturb()
                await self._moves(name)
            drawn = deck.draw()
            point, recovery = await kill_leader(world, drawn)
            verdict.kills[str(point)].append(recovery)
            self._say(f"kill {number + 1}: {point}, {recovery.seconds:.1f} s, epoch {recovery.epoch}")
            if point != drawn:
                self._say(f"not reached: {drawn}")
                deck.put_back(drawn)
            await self._moves(str(point))
            if verdict.asked >= LONG:
                await asyncio.sleep(world.dice.uniform(0, 4))

    def _disturbances(self, kills: int) -> dict[int, list[tuple[str, Disturb]]]:
        """Spread what happens once in a while over the kills."""
        dice, found = self._world.dice, dict[int, list[tuple[str, Disturb]]]()

        def at(share: float, name: str, disturb: Disturb) -> None:
            found.setdefault(min(kills - 1, int(share * kills)), []).append((name, disturb))

        for n in range(1 + kills // 7):
            at((n + 0.5) / (1 + kills // 7), "L1 reorg", self._weather.reorg)
        kinds = dice.sample(OUTAGES, len(OUTAGES))
        for n in range(outages := 1 + kills // 8):
            kind = kinds[n % len(kinds)]
            at((n + 0.3) / outages, f"outage: {kind}", lambda kind=kind: self._outage(kind))
        for n in range(standbys := 1 + kills // 20):
            at((n + 0.7) / standbys, "kill of the standby", self._kill_standby)
        for n in range(stops := kills // 25):
            at((n + 0.4) / stops, "SIGSTOP", self._stop)
        at(0.35, "competing proposal", self._weather.competing_proposal)
        at(0.65, "deletion of outputs", self._weather.delete_outputs)
        return found

    async def _outage(self, kind: str) -> None:
        began = time.monotonic()
        await self._weather.outage(kind, self._world.dice.uniform(*OUTAGE_SECONDS))
        self._excused.append((began, time.monotonic() + EXCUSED_SECONDS))

    async def _kill_standby(self) -> None:
        await kill_standby(self._world)
        self._verdict.standby_kills += 1

    async def _stop(self) -> None:
        recovery = await stop_leader(self._world)
        self._verdict.stops.append(recovery)
        self._say(f"SIGSTOP: {recovery.seconds:.1f} s, epoch {recovery.epoch}")

    async def _moves(self, after: str) -> None:
        """Wait until both are there and the ledger has gone on."""
        mark = await self._world.watch.mark()
        await both_ready(self._world)
        deadline = time.monotonic() + MOVE_SECONDS
        while await self._world.watch.mark() == mark:
            if time.monotonic() > deadline:
                left = "; ".join(await self._world.watch.unfinished())
                raise Stalled(f"nothing moved for {MOVE_SECONDS:.0f} s after {after}: {left or 'nothing is open'}")
            await asyncio.sleep(0.05)

    async def settle(self) -> None:
        """Lift every fault, stop the L2, and wait until all that is final is settled and nothing is open."""
        world = self._world
        self._weather.lift()
        world.devnet.l2.limit = world.devnet.l2.finalized
        self._say(f"settling up to block {world.devnet.l2.limit}")
        mark, moved_at = await world.watch.mark(), time.monotonic()
        while left := await self._left():
            now = await world.watch.mark()
            if now != mark:
                mark, moved_at = now, time.monotonic()
            if time.monotonic() - moved_at > MOVE_SECONDS:
                raise Stalled(f"not settled, and nothing moves for {MOVE_SECONDS:.0f} s: {'; '.join(left)}")
            await asyncio.sleep(0.2)

    async def _left(self) -> list[str]:
        head, final = await self._world.devnet.latest_block_number(), self._world.devnet.l2.finalized
        behind = [f"the contract is at block {head} of {final}"] if head + INTERVAL <= final else []
        return behind + await self._world.watch.unfinished()

    async def judge(self) -> None:
        """Stop both proposers and write down what the chain, the server's log and the ledger say."""
        world, verdict = self._world, self._verdict
        self._weather.lift()
        for helper in self._helpers:
            helper.cancel()
        for helper in self._helpers:
            with suppress(asyncio.CancelledError):
                await helper
        verdict.broken += await world.pair.terminate()
        for at, ended in world.pair.ended_by_themselves:
            verdict.restarts.append(f"{at - world.began:.0f} s: {ended}")
            if not any(first <= at <= last for first, last in self._excused):
                verdict.broken.append(f"{ended}, while nothing was away")
        verdict.taken_up_by_hand = await world.watch.taken_up_by_hand()
        verdict.applied = self._weather.applied
        verdict.report = await check(
            l1_rpc=world.devnet.l1.url,
            oracle=world.devnet.oracle_address,
            proposer=world.devnet.proposer_address,
            output_root=world.devnet.l2.output_root,
            log=world.devnet.prover.log.events,
            ledger_url=world.watch.url,
        )
        verdict.seconds = time.monotonic() - world.began

    def _say(self, sentence: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._world.began:7.1f} s  {sentence}\n")
        sys.stderr.flush()
