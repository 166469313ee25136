"""The policy of the Go proposer that op-succinct began with, under the same clock and over the same prover.

A clock ticks, and ticks that are missed are dropped. A tick runs its stages one after another: full ranges after the
highest one ever planned, one look at each proof in turn, at most one request, an aggregation before any range and only
in the tick after its checkpoint. Transactions and the wait for two more L1 blocks before a proposal stall the whole
loop. What a later version repaired is repaired here too, for the policies to be comparable: halves tile their range.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proposer.l1_transactions import Purpose
from proposer.polling import Execution, Fulfillment
from proposer.ranges import BlockRange, cut
from proposer.requests import Kind, Status
from proposer.simulation.outcome import Outcome
from proposer.simulation.prover import Fate, fate
from proposer.simulation.scenario import Scenario
from proposer.simulation.world import World

_RECEIPT_LOOK = 12.0
"""Seconds between two looks for a receipt."""


@dataclass(slots=True)
class _Row:
    kind: Kind
    range: BlockRange
    attempt: int = 1
    status: Status = Status.UNREQ
    updated: float = 0.0
    checkpointed: bool = False
    becomes: Fate | None = None
    ready: float = 0.0
    paid: bool = False


class SeedPolicy:
    """One run of it."""

    def __init__(self, scenario: Scenario, tick_seconds: float, *, confirm: bool) -> None:
        self._scenario = scenario
        self._settings = scenario.settings
        self._tick_seconds = tick_seconds
        self._confirmations = self._settings.num_confirmations if confirm else 1
        self._world = World(scenario)
        self._clock, self._l1, self._tally = self._world.clock, self._world.l1, self._world.tally
        self._rows: list[_Row] = []
        """Rows that are not below the contract head."""
        self._planned = 0
        self._looked = 0

    def run(self) -> Outcome:
        """Run until only blocks are left that fill no range."""
        loop = self._loop()

        def resume() -> None:
            self._clock.at(self._clock.now + next(loop), resume)

        resume()
        kept_up = self._world.run(lambda: None, self, self._done)
        return self._world.outcome(kept_up)

    def _done(self) -> bool:
        chain, size = self._scenario.chain, self._settings.max_block_range
        required = self._l1.head + self._interval
        reachable = chain.last // size * size
        return self._world.finalized == chain.last and (self._l1.head >= reachable or required > reachable)

    @property
    def _interval(self) -> int:
        return max(self._settings.submission_interval, self._scenario.l1.submission_interval)

    @property
    def version(self) -> int:
        """Any change may have happened."""
        self._looked += 1
        return self._looked

    def queue(self) -> tuple[int, int]:
        """Return how many ranges wait for a slot and how many are in flight."""
        ranges = [row.status for row in self._rows if row.kind is Kind.RANGE]
        return ranges.count(Status.UNREQ), ranges.count(Status.WITNESSGEN) + ranges.count(Status.PROVING)

    def _of(self, kind: Kind, status: Status) -> list[_Row]:
        return sorted((r for r in self._rows if r.kind is kind and r.status is status), key=lambda r: r.range.start)

    def _loop(self) -> Iterator[float]:
        """Yield each time how long it does nothing."""
        while True:
            yield self._tick_seconds - self._clock.now % self._tick_seconds
            yield from self._tick()

    def _tick(self) -> Iterator[float]:
        self._plan()
        for row in [r for r in self._rows if r.status is Status.PROVING]:
            yield self._scenario.service.status_seconds
            if self._world.outages.at(self._clock.now) is not None:
                return  # a look that fails ends the tick
            self._look(row)
        timeout = self._settings.witness_gen_timeout
        for row in [r for r in self._rows if r.status is Status.WITNESSGEN and r.updated + timeout < self._clock.now]:
            self._again(row)
        self._derive()
        yield from self._request()
        yield from self._submit()

    def _plan(self) -> None:
        start, end = max(self._planned, self._l1.head), self._world.finalized
        if end > start:
            for over in cut(BlockRange(start, end), self._settings.max_block_range):
                if over.blocks == self._settings.max_block_range:
                    self._rows.append(_Row(Kind.RANGE, over))
                    self._planned = over.end

    def _look(self, row: _Row) -> None:
        if row.becomes is None or self._clock.now < row.ready:
            return
        status = row.becomes.status
        if status.fulfillment is Fulfillment.FULFILLED:
            row.status = Status.COMPLETE
        else:
            self._again(row, halve=status.execution is Execution.UNEXECUTABLE)

    def _again(self, row: _Row, *, halve: bool = False) -> None:
        """Fail it, and insert the same again or its halves: no pause, no cap."""
        row.status = Status.FAILED
        self._tally.failed += 1
        self._tally.wasted += row.paid
        self._rows.remove(row)
        if halve and row.kind is Kind.RANGE and row.range.blocks > 1:
            self._tally.halved += 1
            self._rows += [_Row(row.kind, half, row.attempt) for half in row.range.halves()]
        else:
            self._rows.append(_Row(row.kind, row.range, row.attempt + 1))

    def _derive(self) -> None:
        head = self._l1.head
        if any(row.kind is Kind.AGG and row.range.start == head for row in self._rows):
            return
        reach = head
        for row in self._of(Kind.RANGE, Status.COMPLETE):
            if row.range.start == reach:
                reach = row.range.end
        if reach >= head + self._interval:
            self._rows.append(_Row(Kind.AGG, BlockRange(head, reach)))

    def _request(self) -> Iterator[float]:
        if aggregations := self._of(Kind.AGG, Status.UNREQ):
            row = aggregations[0]
            if row.checkpointed:
                self._ask(row)
            else:
                self._tally.checkpoints += 1
                yield from self._send(Purpose.CHECKPOINT, self._l1.block - 1, lambda: None)
                row.checkpointed = True
            return
        witnesses = sum(row.status is Status.WITNESSGEN for row in self._rows)
        in_flight = witnesses + sum(row.status is Status.PROVING for row in self._rows)
        ranges = self._of(Kind.RANGE, Status.UNREQ)
        if ranges and witnesses < self._settings.max_witness_gen and in_flight < self._settings.max_proof_requests:
            self._ask(ranges[0])

    def _ask(self, row: _Row) -> None:
        now, timeout = self._clock.now, self._settings.witness_gen_timeout
        row.status, row.updated = Status.WITNESSGEN, now
        self._tally.retried += row.attempt > 1
        if self._world.outages.at(now) is not None:
            self._again(row)
            return
        becomes = row.becomes = fate(self._scenario.prover, self._scenario.seed, row.kind, row.range, row.attempt)
        cut_off = self._world.outages.next_after(now)

        def unless_given_up(what: Callable[[_Row], None]) -> Callable[[], None]:
            return lambda: what(row) if row.status is Status.WITNESSGEN else None

        if cut_off is not None and cut_off < now + min(becomes.witness, timeout):
            self._clock.at(cut_off, unless_given_up(self._again))
        elif becomes.witness > timeout:
            self._pay(row)
            self._clock.at(now + timeout, unless_given_up(self._again))
        elif becomes.refused:
            self._clock.at(now + becomes.witness, unless_given_up(self._again))
        else:
            self._clock.at(now + becomes.witness, unless_given_up(self._answered))

    def _answered(self, row: _Row) -> None:
        assert row.becomes is not None  # it was asked for
        self._pay(row)
        row.status, row.ready = Status.PROVING, self._clock.now + row.becomes.proving

    def _pay(self, row: _Row) -> None:
        row.paid = True
        if row.kind is Kind.RANGE:
            self._tally.range_paid += 1
            self._tally.blocks_paid += row.range.blocks
        else:
            self._tally.aggregation_paid += 1

    def _submit(self) -> Iterator[float]:
        ready = [row for row in self._of(Kind.AGG, Status.COMPLETE) if row.range.start == self._l1.head]
        if not ready:
            return
        best = max(ready, key=lambda row: row.range.end)
        before = self._l1.block
        while self._l1.block <= before + 1:
            yield self._tick_seconds
        yield from self._send(Purpose.PROPOSE, None, lambda: self._settled(best.range.end))

    def _settled(self, block: int) -> None:
        self._world.settled(block)
        self._rows = [row for row in self._rows if row.range.end > block]

    def _send(self, purpose: Purpose, subject: int | None, then: Callable[[], None]) -> Iterator[float]:
        """Send, and wait until it is under enough blocks."""
        mined_in: list[int] = []

        def mined() -> None:
            mined_in.append(self._l1.block)
            then()

        self._l1.send(purpose, 0, subject, mined)
        while not mined_in or mined_in[0] + self._confirmations > self._l1.block + 1:
            yield _RECEIPT_LOOK
        self._l1.tend()
