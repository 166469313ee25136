"""The proposer under the virtual clock: its own decisions, in the order of its cycle and woken as its process is."""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from proposer.l1_transactions import Purpose
from proposer.permission import Permission, permission
from proposer.plan_aggregation import plan_aggregation
from proposer.plan_ranges import plan_ranges
from proposer.plan_requests import plan_requests
from proposer.plan_submission import plan_submission
from proposer.polling import Ended, Execution, Fulfillment, ProofStatus, Proven, judge
from proposer.requests import Failure, Kind, ProofRequest, Status
from proposer.retry import pause_while_down, successors
from proposer.simulation.clock import moment, seconds
from proposer.simulation.l1 import hash_of
from proposer.simulation.ledger import Ledger
from proposer.simulation.looks import first_look
from proposer.simulation.outcome import Outcome
from proposer.simulation.prover import Fate, fate
from proposer.simulation.scenario import Scenario
from proposer.simulation.world import World
from proposer.situation import decide
from proposer.snapshot import Mark, NodeView, Outside, ServerView, Snapshot, next_required
from proposer.units import L1Block, L2Block
from proposer.wake import to_do

_SERVER = ServerView(config_hash_valid=True, agg_vkey_valid=True, range_vkey_valid=True)
_UNDER_WAY = ProofStatus(Fulfillment.ASSIGNED, Execution.EXECUTED, None)
_AWAY = {"server": "it is away"}


@dataclass(slots=True)
class _Look:
    """A request that is being proven: its fate, when that shows, and when it was and will be looked at."""

    becomes: Fate
    ready: float
    last: float
    due: float


class ServicePolicy:
    """One run of the service."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._settings = scenario.settings
        self._world = World(scenario)
        self._clock = self._world.clock
        self._l1 = self._world.l1
        self._ledger = Ledger(self._clock, self._world.tally)
        self._finalized: Mark | None = None
        self._required: Mark | None = None
        self._outside = Outside(oracle=None, node=None, server=None, errors={})
        self._cycle_planned = False
        self._busy_until = 0.0
        self._woken_for: tuple[str, ...] = ()
        self._timers: set[float] = set()
        self._looks: dict[int, _Look] = {}
        self._cut: set[int] = set()
        """Requests whose connection was cut: nobody waits for their answer any more."""

    def run(self) -> Outcome:
        """Run to the end."""
        last = self._scenario.chain.last
        kept_up = self._world.run(self._finality, self._ledger, lambda: self._l1.head >= last)
        snapshot = self._look_outside()
        decided = decide(snapshot, self._allowed(snapshot))
        waits = [*decided.ranges.reasons, *decided.aggregation.reasons, *decided.requests.reasons]
        left = snapshot.next_required(self._l1.head) <= self._world.finalized
        self._ledger.close(self._l1.head)
        return self._world.outcome(kept_up and not left, [str(reason) for reason in waits] if left else ())

    # -- what wakes it

    def _finality(self) -> None:
        interval = self._settings.look_interval
        turn = math.ceil(self._clock.now / interval - 1e-6) * interval
        brisk = self._scenario.service.brisk_seconds
        at = min(turn, self._clock.now + brisk) if self._is_brisk() else turn
        self._clock.at(at, self._notice)

    def _is_brisk(self) -> bool:
        return bool(self._l1.transactions) or self._waits_for_l1()

    def _waits_for_l1(self) -> bool:
        return any(
            r.kind is Kind.AGG and r.status in {Status.UNREQ, Status.COMPLETE} for r in self._ledger.rows.values()
        )

    def _notice(self) -> None:
        """Look at everything; start a cycle where it would do something that the last one did not leave undone."""
        if self._cycle_planned:
            return
        snapshot = self._look_outside()
        work = to_do(snapshot, self._allowed(snapshot))
        if work and work != self._woken_for:
            self._woken_for = work
            self._start_cycle()
        else:
            self._set_timers()

    def _start_cycle(self) -> None:
        if not self._cycle_planned:
            self._cycle_planned = True
            start = max(self._clock.now, self._busy_until) + self._scenario.service.cycle_start
            self._clock.at(start, self._cycle)

    def _changed(self) -> None:
        self._woken_for = ()
        self._notice()

    def _timer(self, at: float) -> None:
        if at <= self._clock.now or at in self._timers:
            return
        self._timers.add(at)

        def ring() -> None:
            self._timers.discard(at)
            self._changed()

        self._clock.at(at, ring)

    # -- what it sees

    def _look_outside(self) -> Snapshot:
        """Look at L1 and the node; write down the highest finality, and since when it has reached the next output."""
        self._l1.tend()
        now, finalized = moment(self._clock.now), L2Block(self._world.finalized)
        away = self._world.outages.at(self._clock.now) is not None
        oracle = self._l1.read()
        self._outside = Outside(
            oracle=oracle,
            node=NodeView(finalized=finalized, unsafe=finalized, root_at_head=None),
            server=None if away else _SERVER,
            errors=_AWAY if away else {},
        )
        if finalized > (self._finalized.number if self._finalized else 0):
            self._finalized = Mark(finalized, now)
        required = next_required(self._l1.head, self._settings, oracle)
        if finalized >= required and (self._required is None or self._required.number != required):
            self._required = Mark(required, now)
        return self._snapshot()

    def _allowed(self, snapshot: Snapshot) -> Permission:
        return permission(snapshot.outside, self._settings.min_balance)

    def _snapshot(self) -> Snapshot:
        live, closed = self._ledger.view()
        return Snapshot(
            now=moment(self._clock.now),
            settings=self._settings,
            outside=self._outside,
            requests=live,
            transactions=self._l1.transactions,
            finalized=self._finalized,
            required=self._required,
            attempts_above=closed,
            checkpointed=self._l1.stored,
        )

    # -- the cycle

    def _cycle(self) -> None:
        self._cycle_planned = False
        snapshot = self._look_outside()
        allowed = self._allowed(snapshot)
        ranges = plan_ranges(snapshot, allowed.may_request)
        self._ledger.apply(ranges)
        self._ledger.forget(self._l1.head)
        self._recover()
        aggregation = plan_aggregation(self._snapshot(), allowed.may_request)
        self._ledger.apply(aggregation)
        self._request(allowed)
        submission = plan_submission(self._snapshot(), allowed.may_submit)
        if submission.request is not None and self._l1.free():
            self._propose(self._ledger.rows[submission.request])
        self._set_timers()
        self._busy_until = self._clock.now + self._scenario.service.cycle_seconds
        if any(move.to is not Status.RELAYED for move in (*ranges.moves, *aggregation.moves)):
            self._clock.at(
                self._busy_until, self._notice
            )  # what was given up makes room; anything else comes of events

    def _recover(self) -> None:
        """Stage 3: what was cut off and has waited its time out is asked again, at most once for that reason."""
        timeout = timedelta(seconds=self._settings.witness_gen_timeout)
        now = moment(self._clock.now)
        for number in sorted(self._cut):
            row = self._ledger.rows.get(number)
            if row is None or row.status is not Status.WITNESSGEN:
                self._cut.discard(number)
            elif now - row.since >= timeout:
                self._cut.discard(number)
                self._fail(row, Failure.OUTCOME_UNKNOWN)

    def _request(self, allowed: Permission) -> None:
        decided = plan_requests(self._snapshot(), allowed.may_request)
        for number in decided.start:
            changes: dict[str, Any] = {"requested_at": moment(self._clock.now), "failure": None}
            if number in decided.anchors:
                changes["checkpoint"] = decided.anchors[number]
            self._ledger.move(number, Status.UNREQ, Status.WITNESSGEN, **changes)
            self._ask(self._ledger.rows[number])
        for number, subject in decided.checkpoint:
            if self._l1.free():
                self._world.tally.checkpoints += 1
                self._l1.send(Purpose.CHECKPOINT, number, subject, self._mined)

    def _propose(self, request: ProofRequest) -> None:
        def mined() -> None:
            self._ledger.used |= {request.id, *request.members}
            self._world.settled(request.range.end)
            self._mined()

        self._l1.send(Purpose.PROPOSE, request.id, None, mined)

    def _mined(self) -> None:
        self._clock.at(self._clock.now + self._scenario.service.loop_seconds, self._changed)

    def _set_timers(self) -> None:
        rows = self._ledger.rows.values()
        for row in rows:
            if row.status is Status.UNREQ and row.next_attempt_at is not None:
                self._timer(seconds(row.next_attempt_at))
            elif row.status is Status.PARKED:
                self._operator(row)
        if self._required is not None:
            self._timer(seconds(self._required.at) + self._settings.max_tail_wait)
        if self._waits_for_l1() and self._l1.free():
            self._timer(self._l1.next_block_at() + self._scenario.service.loop_seconds)

    def _operator(self, row: ProofRequest) -> None:
        def take_up() -> None:
            due = {"next_attempt_at": moment(self._clock.now), "failure": None}
            if self._ledger.move(row.id, Status.PARKED, Status.UNREQ, **due):
                self._changed()

        at = seconds(row.since) + self._scenario.service.operator_seconds
        if at not in self._timers:
            self._timers.add(at)
            self._clock.at(at, take_up)

    # -- the prover

    def _ask(self, request: ProofRequest) -> None:
        if self._world.outages.at(self._clock.now) is not None:
            until = moment(self._clock.now) + pause_while_down(request.id)
            postponed = {"next_attempt_at": until, "requested_at": None}
            self._ledger.move(request.id, Status.WITNESSGEN, Status.UNREQ, **postponed)
            return
        becomes = fate(self._scenario.prover, self._scenario.seed, request.kind, request.range, request.attempt)
        now, timeout = self._clock.now, self._settings.witness_gen_timeout
        cut = self._world.outages.next_after(now)
        self._world.tally.retried += request.attempt > 1
        if cut is not None and cut < now + min(becomes.witness, timeout):
            self._cut.add(request.id)
            # only a scheduled cycle asks who is still waited for
            scheduled = math.ceil((now + timeout) / self._settings.poll_interval) * self._settings.poll_interval
            self._clock.at(scheduled, self._start_cycle)
        elif becomes.witness > timeout:
            self._clock.at(now + timeout, lambda: self._unanswered(request))
        else:
            self._clock.at(now + becomes.witness, lambda: self._answered(request, becomes))

    def _unanswered(self, request: ProofRequest) -> None:
        """The server went on without us: the network was asked, and its id is lost."""
        self._pay(request)
        if (row := self._waiting(request)) is not None:
            self._fail(row, Failure.WITNESS_TIMEOUT)
        self._changed()

    def _answered(self, request: ProofRequest, becomes: Fate) -> None:
        row = self._waiting(request)
        if not becomes.refused:
            self._pay(request)
        if row is not None and becomes.refused:
            self._fail(row, Failure.WITNESS_FAILED)
        elif row is not None:
            head = self._l1.block
            bound = {"prover_id": f"{row.id:x}", "l1_head": L1Block(head), "l1_head_hash": hash_of(head)}
            self._ledger.move(row.id, Status.WITNESSGEN, Status.PROVING, **bound)
            now = self._clock.now
            self._looks[row.id] = _Look(becomes, now + becomes.proving, now, now)
            self._plan_look(row.id)
        self._changed()

    def _waiting(self, request: ProofRequest) -> ProofRequest | None:
        """Return the row if it still waits for its answer: what the head has passed meanwhile was cancelled."""
        row = self._ledger.rows.get(request.id)
        return row if row is not None and row.status is Status.WITNESSGEN else None

    def _pay(self, row: ProofRequest) -> None:
        if row.id in self._ledger.rows:
            self._ledger.paid.add(row.id)
        else:
            self._world.tally.wasted += 1
        if row.kind is Kind.RANGE:
            self._world.tally.range_paid += 1
            self._world.tally.blocks_paid += row.range.blocks
        else:
            self._world.tally.aggregation_paid += 1

    def _plan_look(self, number: int) -> None:
        """Plan the look that shows something: the fate, or that the time is up."""
        look, row = self._looks[number], self._ledger.rows[number]
        shows = look.ready
        if row.status is Status.PROVING:
            shows = min(shows, seconds(row.since) + self._settings.max_proof_time + 0.001)
        look.due = self._first_look(row, look.last, shows)
        while (back := self._world.outages.at(look.due)) is not None:
            look.due = self._first_look(row, look.due, max(back, shows))
        due = look.due
        self._clock.at(due + self._scenario.service.status_seconds, lambda: self._look(number, due))

    def _first_look(self, row: ProofRequest, last: float, shows: float) -> float:
        usual = self._ledger.usual.get(row.kind)
        return first_look(row, usual, self._settings.look_interval, self._scenario.service.loop_seconds, last, shows)

    def _look_by_history(self, kind: Kind) -> None:
        """Plan anew, now that it is known how long proofs of this kind take; the next look stays where it is."""
        for number, look in self._looks.items():
            row = self._ledger.rows.get(number)
            if row is None or row.kind is not kind or look.due <= self._clock.now:
                continue
            loop = self._scenario.service.loop_seconds
            following = first_look(row, None, self._settings.look_interval, loop, look.last, self._clock.now)
            if following < look.due:
                look.last = following
                self._plan_look(number)

    def _look(self, number: int, at: float) -> None:
        look, row = self._looks.get(number), self._ledger.rows.get(number)
        if look is None or look.due != at:
            return  # planned anew meanwhile
        if row is None:
            del self._looks[number]
            return
        look.last = at
        status = look.becomes.status if at >= look.ready else _UNDER_WAY
        match judge(row, status, self._settings.max_proof_time, moment(at)):
            case Proven():
                del self._looks[number]
                known = row.kind in self._ledger.usual
                self._ledger.complete(number)
                if not known and row.kind in self._ledger.usual:
                    self._look_by_history(row.kind)
            case Ended(failure):
                if row.status is Status.PROVING:
                    self._fail(row, failure)
                if failure is Failure.PROOF_TIMEOUT and at < look.ready:
                    self._plan_look(number)  # it may still be delivered
                else:
                    del self._looks[number]
            case None:
                self._plan_look(number)
        self._changed()

    def _fail(self, row: ProofRequest, failure: Failure) -> None:
        follow = successors(row, failure, self._settings.retry_policy, moment(self._clock.now))
        self._world.tally.halved += failure is Failure.UNEXECUTABLE and len(follow) > 1
        self._ledger.fail(row.id, row.status, failure, follow)
