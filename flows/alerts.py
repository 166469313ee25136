"""Reasons to Prefect events, which its automations turn into messages: each is told once when it begins.

Off the critical path, one call at a time, each with a deadline. What was told is remembered by Prefect itself: after an
outage, a restart or a takeover its own events are read first, so that nothing is told twice and only what still holds
is told late.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from prefect.client.orchestration import PrefectClient
from prefect.events.schemas.events import Event, Resource

from blocks.ledger.standing import Standing, standing
from flows.context import Proposer
from flows.mirror import PATIENT_SECONDS, PREFECT_AWAY, within
from proposer.alerts import ALERT, ALIVE, CONDITIONS, DUE, ORDER, OVER, SETTLED, Signal, Watch
from proposer.errors import ProposerError
from proposer.orders import Order
from proposer.plan_aggregation import request_parked
from proposer.reasons import Code
from proposer.requests import Failure
from proposer.snapshot import next_required

log = logging.getLogger("proposer.alerts")

ROUND_SECONDS = 2.0
FIRST_SECONDS = 6.0
"""Before the first round: Prefect writes the events of the process before within 5 s."""
ALIVE_SECONDS = 60.0
"""Between two signs of life; a quarter of ALERT_SILENT_AFTER where that is less."""
RECALLED = 50
"""The newest events that are read back; Prefect gives as many at once."""
LATELY = timedelta(hours=1)
"""Orders carried out before are not told any more."""
_PARKED = frozenset({Code.REQUEST_PARKED})


class Alerts:
    """The one who tells what a person is to be woken for."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self._watch = Watch(proposer.settings)
        self._recalled = False
        self._orders_told: set[int] = set()
        self._cycle_seen: float | None = None
        self._cycles_failed = 0
        self._head: int | None = None
        self._alive_at = self._due_at = 0.0
        self._due_told: tuple[int, datetime] | None = None

    @property
    def resource_id(self) -> str:
        """What the events are about."""
        return resource_id(self._proposer.name)

    async def run(self, client: PrefectClient) -> None:
        """Tell what there is to tell, for ever; pause longer while Prefect's server is away."""
        pause = ROUND_SECONDS
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.round(client)
                pause = ROUND_SECONDS
            except PREFECT_AWAY as error:
                self._recalled = False  # whether it took the last ones is not known
                log.info("Prefect's server is away, alerts wait for it: %s", type(error).__name__)
                pause = min(pause * 2, 15.0)
            except ProposerError as error:
                log.warning("alerts wait: %s", error)
                pause = min(pause * 2, 15.0)
            await asyncio.sleep(pause)

    async def round(self, client: PrefectClient) -> list[str]:
        """Look once and emit what is new, all in one call; return the names of the events."""
        if not self._recalled:
            await self._recall(client)
        seen = await standing(self._proposer.ledger, LATELY)
        now = seen.now
        self._take_in(seen, now)
        signals = self._watch.signals(now)
        orders = [order for order in seen.orders if order.id not in self._orders_told]
        pulse = self._pulse(seen, now)
        events = [*pulse, *(self._of_signal(s, now) for s in signals), *(self._of_order(o) for o in orders)]
        if events:
            body = [event.model_dump(mode="json") for event in events]
            await within(client.request("POST", "/events", json=body), PATIENT_SECONDS)
        for event in events:
            self._emitted(event)
        for signal in signals:
            self._watch.learn(signal.event, signal.subjects, now)
        self._orders_told |= {order.id for order in orders}
        return [event.event for event in events]

    async def _recall(self, client: PrefectClient) -> None:
        """Learn from Prefect what was told already, by whichever process."""
        wanted = {
            "event": {"prefix": [ALERT, OVER, ORDER]},
            "resource": {"id": [self.resource_id]},
            "order": "DESC",
        }
        body = {"filter": wanted, "limit": RECALLED}
        answer = await within(client.request("POST", "/events/filter", json=body), PATIENT_SECONDS)
        for event in reversed(answer.json()["events"]):
            payload = event["payload"]
            self._watch.learn(event["event"], payload.get("subjects", ()), datetime.fromisoformat(event["occurred"]))
            if event["event"].startswith(ORDER) and "order" in payload:
                self._orders_told.add(int(payload["order"]))
        self._recalled = True

    def _take_in(self, seen: Standing, now: datetime) -> None:
        """Give the watch what the last cycle and the ledger say; a cycle with an error says nothing is over."""
        record, settings = self._proposer.record, self._proposer.settings
        by_hand = Failure.CANCELLED_BY_OPERATOR  # whoever cancelled it knows
        parked = [request_parked(request) for request in seen.parked if request.failure is not by_hand]
        self._watch.see(parked, _PARKED, now, complete=True)
        if (record.ended_at, record.failed) != (self._cycle_seen, self._cycles_failed):
            self._cycle_seen, self._cycles_failed = record.ended_at, record.failed
            failing = record.failing(settings.alert_failed_cycles)
            reasons = [*record.reasons, *([failing] if failing else [])]
            self._watch.see(reasons, CONDITIONS - _PARKED, now, complete=not record.error)
        while record.incidents:
            self._watch.happened(record.incidents.popleft(), now)

    def _pulse(self, seen: Standing, now: datetime) -> list[Event]:
        """Return the events that proactive automations wait for: a sign of life, an output due, an output settled."""
        proposer, events = self._proposer, list[Event]()
        settings, clock = proposer.settings, time.monotonic()
        cycles_run = clock - proposer.last_cycle_at < max(60.0, 3 * settings.poll_interval)
        every = min(ALIVE_SECONDS, settings.alert_silent_after / 4)
        if (cycles_run or proposer.draining) and clock - self._alive_at >= every:
            last = now.astimezone(UTC) - timedelta(seconds=clock - proposer.last_cycle_at)
            sentence = f"It led under epoch {proposer.epoch}, and its last cycle began {last:%Y-%m-%d %H:%M:%S} UTC."
            events.append(self._event(ALIVE, {"sentence": sentence, "epoch": proposer.epoch}, now))
        oracle = proposer.record.outside.oracle if proposer.record.outside else None
        if oracle is None:
            return events
        head = int(oracle.latest_block)
        if self._head is not None and head > self._head:
            events.append(self._event(SETTLED, {"sentence": f"Block {head} was settled.", "block": head}, now))
        self._head = head if self._head is None else self._head
        due, most = seen.required, settings.alert_no_settlement_after
        if due is None or due.number != next_required(head, settings, oracle) or now - due.at > timedelta(seconds=most):
            return events
        # told again with the time it began: a deadline that Prefect has stands, one that it lost, or took to be met by
        # the output before (it takes two events at a time, in no order), is set anew
        if self._due_told != (due.number, due.at) or clock - self._due_at >= most / 8:
            said = f"The output at block {due.number} is due since {due.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
            events.append(self._event(DUE, {"sentence": said, "block": due.number, "head": head}, due.at))
        return events

    def _emitted(self, event: Event) -> None:
        match event.event:
            case name if name == ALIVE:
                self._alive_at = time.monotonic()
            case name if name == SETTLED:
                self._head = event.payload["block"]
            case name if name == DUE:
                self._due_told, self._due_at = (event.payload["block"], event.occurred), time.monotonic()
            case _:
                log.info("told: %s: %s", event.event, event.payload["sentence"])

    def _of_signal(self, signal: Signal, now: datetime) -> Event:
        payload = {**signal.payload, "since": signal.since.isoformat(), "subjects": list(signal.subjects)}
        event = self._event(signal.event, payload, now)
        return self._known(event, signal.event, signal.since.isoformat(), *signal.subjects)

    def _of_order(self, order: Order) -> Event:
        about = f" {order.request}" if order.request is not None else ""
        payload = {
            "sentence": f"{order.who} ordered {order.kind.value}{about}: {order.why}",
            "order": order.id,
            "kind": order.kind.value,
            "request": order.request,
            "who": order.who,
            "why": order.why,
            "outcome": order.outcome,
        }
        event = self._event(f"{ORDER}{order.kind.value}", payload, order.done_at or order.at)
        return self._known(event, "order", str(order.id))

    def _known(self, event: Event, *by: str) -> Event:
        """Give an event an id of its content: one that was taken although its answer was lost counts once."""
        key = " ".join((self.resource_id, self._proposer.ledger_id, *by))
        return event.model_copy(update={"id": uuid5(NAMESPACE_OID, key)})

    def _event(self, name: str, payload: dict[str, Any], occurred: datetime) -> Event:
        about = {"prefect.resource.id": self.resource_id, "prefect.resource.name": self._proposer.name}
        return Event.model_validate(
            {"event": name, "resource": Resource.model_validate(about), "payload": payload, "occurred": occurred}
        )


def resource_id(name: str) -> str:
    """Return the id of a proposer in Prefect's events."""
    return f"op-succinct.proposer.{name}"
