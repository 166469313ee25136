"""The proposer process: one per rollup, one event loop, four duties.

It runs cycles in itself, holds the requests whose answers take minutes, looks between cycles and starts one as soon
as the decisions would do something, and goes on without Prefect.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from deployments.claim import Claim
from deployments.prefect_errors import brief
from deployments.runner import Runner, Runs, query_seconds
from flows.alerts import Alerts
from flows.context import Proposer, snapshot_of
from flows.cycle import call, run_stages
from flows.mirror import PREFECT_AWAY, Mirror
from flows.orders import obey
from flows.stages import observe, proving
from flows.transactions import tend
from flows.witness import take_answers
from proposer.errors import NameClash, NotLeader, ProposerError
from proposer.permission import permission
from proposer.polling import LEAST_WAIT_SECONDS
from proposer.requests import Kind, Status
from proposer.snapshot import Outside, Snapshot
from proposer.wake import to_do

log = logging.getLogger("proposer.process")

LOOK_EVERY_SECONDS = 1.0
"""At most between two looks at what may have changed; less where a proof is to be looked at sooner."""
BRISK_SECONDS = 2.0
"""Between two looks at the chain while a transaction or an aggregation waits for it."""
WAKE_SECONDS, FIRST_WAKE_SECONDS = 5.0, 2.0
"""How long Prefect may take to start a cycle before it is run without it; the first after a takeover waits less."""
AWAY = "Prefect's server is away, settlement goes on without it: %s"
LOOK_SECONDS = 30.0
"""How long a look may go on after the process was asked to stop."""
LAST_WORDS_SECONDS = 5.0
"""How long runs under way may go on telling Prefect what became of them, once the leadership is lost."""
START_SECONDS = 5.0
"""How long the very first cycle of a ledger waits for Prefect, so that it is recorded."""
TAKEOVER_SECONDS = 1.5
"""As much for every later start: somebody's work is waiting."""


class Stopped(Exception):
    """The process was asked to stop and has drained."""


class Process:
    """One leadership's worth of duties; made anew after a takeover."""

    def __init__(
        self, proposer: Proposer, claim: Claim, stop: asyncio.Event, on_prefect: Callable[[], Awaitable[None]]
    ) -> None:
        self._proposer = proposer
        self._claim = claim
        self._stop = stop
        self._on_prefect = on_prefect
        self._runner: Runner | None = None
        self._mirror: Mirror | None = None
        self._alerts = Alerts(proposer)
        self._runs = Runs()
        self._attached = asyncio.Event()
        self._outside: Outside | None = None
        self._outside_at = 0.0
        self._brisk = True
        self._woken_for: tuple[str, ...] = ()
        self._woken_at: float | None = None
        self._cycles_seen = proposer.epoch == 1
        self._prefect_answers = False
        self._said: dict[str, str] = {}

    async def lead(self) -> bool:
        """Do the duties until stopped (True) or until the leadership is lost (False). Raises `NameClash`."""
        stopped, clash = False, None
        async with self._runs.open():
            try:
                async with asyncio.TaskGroup() as duties:
                    duties.create_task(self._claim.keep(), name="claim")
                    looks = duties.create_task(self._look_for_ever(), name="looks")
                    prefect = duties.create_task(self._with_prefect(), name="prefect")
                    duties.create_task(self._stop_cleanly(looks, prefect), name="stop")
            except* Stopped:
                stopped = True
            except* NotLeader as lost:
                log.warning("%s", lost.exceptions[0])
            except* NameClash as found:
                clash = found.exceptions[0]
            if running := list(self._runs.running.values()):
                await asyncio.wait(running, timeout=LAST_WORDS_SECONDS)
        if clash is not None:
            raise clash
        return stopped

    async def _stop_cleanly(self, *duties: "asyncio.Task[None]") -> None:
        """Claim nothing new, let what was sent be answered, and leave the ledger and Prefect true."""
        await self._stop.wait()
        self._proposer.draining = True
        self._proposer.changed.set()
        await asyncio.wait([duties[0]], timeout=LOOK_SECONDS)  # it ends by itself after the look under way
        duties[0].cancel()
        async with self._proposer.cycle_lock:
            pass  # the cycle under way ends first
        waiting = list(self._proposer.witnesses.values())
        log.info("stopping: %s request%s to be answered", len(waiting), "" if len(waiting) == 1 else "s")
        if waiting:
            await asyncio.wait(waiting, timeout=self._proposer.drain_left())
        left = [task for task in waiting if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._runner is not None and self._mirror is not None:
            try:
                async with asyncio.timeout(5):
                    await self._runner.drain()
                    await self._mirror.catch_up()
            except Exception as error:  # noqa: BLE001 - nor keep the leadership from being released
                log.info("Prefect's history is completed at the next start: %s", type(error).__name__)
        for duty in duties:
            duty.cancel()
        raise Stopped

    async def _look_for_ever(self) -> None:
        await _wait(self._attached, START_SECONDS if self._proposer.epoch == 1 else TAKEOVER_SECONDS)
        self._proposer.last_cycle_at = time.monotonic()
        pause = looked_at = 0.0
        while not self._proposer.draining:
            woken = await _wait(self._proposer.changed, pause)
            everywhere = woken or time.monotonic() - looked_at >= LOOK_EVERY_SECONDS
            did: list[str] = []
            try:
                if everywhere:
                    looked_at = time.monotonic()
                    did += await obey(self._proposer)
                    did += await take_answers(self._proposer)
                    tended = await tend(self._proposer)
                    did += tended.did
                    self._say_once("transactions", _failed(*tended.errors))
                did += await proving.look(self._proposer)
            except NotLeader:
                raise
            except ProposerError as error:
                self._say_once("look", _failed(str(error)))
            for sentence in did:
                log.info("%s", sentence)
            if did:
                self._woken_for, self._outside_at = (), 0.0
            pause = LOOK_EVERY_SECONDS
            try:
                if everywhere or did:
                    await self._start_cycle_if_needed()
                due = await self._proposer.ledger.next_look()
                pause = pause if due is None else min(max(due, LEAST_WAIT_SECONDS), pause)
            except NotLeader:
                raise
            except ProposerError as error:
                self._say_once("decision", _failed(str(error)))

    async def _start_cycle_if_needed(self) -> None:
        """Start a cycle when it would do something now, when its clock says so, or when Prefect let one slip."""
        proposer, now = self._proposer, time.monotonic()
        if self._woken_at is not None and proposer.last_cycle_at >= self._woken_at:
            self._woken_at, self._cycles_seen = None, True
        patience = WAKE_SECONDS if self._cycles_seen else FIRST_WAKE_SECONDS
        if self._woken_at is not None and now - self._woken_at > patience:
            self._woken_at = None
            await self._without_prefect("Prefect did not start the cycle in time")
        elif now - proposer.last_cycle_at > 1.5 * proposer.settings.poll_interval + query_seconds():
            await self._without_prefect("no cycle came from Prefect")
        elif self._woken_at is None and not proposer.cycle_lock.locked() and not proposer.draining:
            await self._wake_for(await self._decide())

    async def _decide(self) -> tuple[str, ...]:
        outside = await self._look_outside()
        snapshot = await snapshot_of(self._proposer, outside, self._proposer.settings)
        self._brisk = _is_brisk(snapshot)
        allowed = permission(outside, self._proposer.settings.min_balance, await self._proposer.ledger.paused())
        return to_do(snapshot, allowed)

    async def _look_outside(self) -> Outside:
        """Look at chain and node again when the last look is old; the server is asked once a cycle only."""
        age = time.monotonic() - self._outside_at
        brisk = BRISK_SECONDS if self._brisk else self._proposer.settings.look_interval
        if self._outside is None or age > brisk:
            self._outside = await observe.observe(self._proposer, observe.plainly, afresh=False)
            self._outside_at = time.monotonic()
            self._say_once("outside", _failed(*self._outside.errors.values()))
            await observe.remember(self._proposer, self._outside)
        return self._outside

    async def _wake_for(self, work: tuple[str, ...]) -> None:
        """Start a cycle for this work, unless the cycle before was started for the very same and left it undone."""
        if not work or work == self._woken_for:
            return
        self._woken_for = work
        why = work[0] if len(work) == 1 else f"{work[0]} and {len(work) - 1} more"
        try:
            if self._runner is None or not self._prefect_answers:
                raise TimeoutError("Prefect does not answer")
            await self._runner.wake(why)
        except ProposerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever Prefect answers must not stop settlement
            if not isinstance(error, (*PREFECT_AWAY, ObjectNotFound)):
                self._say_once("Prefect", AWAY % brief(error))
            await self._without_prefect(why)
        else:
            self._woken_at = time.monotonic()

    async def _without_prefect(self, why: str) -> None:
        report = await run_stages(self._proposer, call, observe.plainly)
        log.info("cycle without Prefect (%s): %s", why, "; ".join(report.did) or "nothing to do")
        for name, error in report.failed.items():
            log.warning("stage %s failed: %s", name, error)

    async def _with_prefect(self) -> None:
        """Serve Prefect's runs and mirror the ledger, whenever Prefect's server is there."""
        while True:
            try:
                await self._on_prefect()
                async with get_client() as client:
                    await self._serve(client)
            except (NotLeader, NameClash):
                raise
            except Exception as error:  # noqa: BLE001 - whatever Prefect does must not stop settlement
                self._say_once("Prefect", AWAY % brief(error))
            await asyncio.sleep(2)

    async def _serve(self, client: PrefectClient) -> None:
        runner, mirror = Runner(self._proposer, client, self._runs), Mirror(self._proposer, client)
        await runner.attach()
        # known from here on only: one that is not attached knows no deployment to wake
        self._runner, self._mirror, self._prefect_answers = runner, mirror, True
        self._proposer.prefect = client
        self._attached.set()
        mirroring = asyncio.create_task(mirror.run(), name="mirror")
        telling = asyncio.create_task(self._alerts.run(client), name="alerts")
        try:
            while not mirroring.done() and not telling.done():
                if not self._proposer.draining:
                    try:
                        if not self._prefect_answers:
                            await runner.attach()  # runs that the outage has cut off are closed
                        await runner.poll()
                        self._prefect_answers = True
                    except PREFECT_AWAY as error:
                        self._prefect_answers = isinstance(error, TimeoutError)
                        self._say_once("Prefect", AWAY % type(error).__name__)
                        await asyncio.sleep(1)
                await asyncio.sleep(query_seconds())
            for task in (mirroring, telling):
                if task.done():
                    task.result()
        finally:
            mirroring.cancel()
            telling.cancel()
            if self._proposer.publishing is not None:
                self._proposer.publishing.cancel()
            self._runner = self._mirror = self._proposer.prefect = None  # their client is closed now
            self._prefect_answers = False

    def _say_once(self, topic: str, sentence: str) -> None:
        """Log a sentence that would repeat every second only when it changes; an empty one ends the matter."""
        if sentence and sentence != self._said.get(topic):
            log.warning("%s", sentence)
        self._said[topic] = sentence


def _failed(*errors: str) -> str:
    return f"a look failed: {'; '.join(errors)}" if errors else ""


def _is_brisk(snapshot: Snapshot) -> bool:
    """Whether something waits for the next L1 block."""
    ready = (r for r in snapshot.of_kind(Kind.AGG) if r.status in {Status.UNREQ, Status.COMPLETE})
    return bool(snapshot.transactions) or any(ready)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, at most so long, and clear it; return whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
